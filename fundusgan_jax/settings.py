"""Every setting of a run: its default, what it may be, whether it may change within a workdir, what it is for.

FundusGAN as published (arXiv 2503.17831), decisions of ours where it is silent. configs/default.py is made of this table, `config`
checks by it, `--help` prints it.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Setting(NamedTuple):
    """One setting.

    default: its type is the setting's. comment: what it is for, with units. choices: the words it may be; empty for any.
    least, most: it may be these and what is between. above, below: it must differ from these. may_change: between two
    starts of one workdir, because it changes neither the numbers of a step nor what checkpoints are ranked by. network: it
    makes a network what it is, so that --mode=eval and generate take no other value than the training's.
    """

    default: Any
    comment: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    may_change: bool = False
    network: bool = False

    def complaint(self, value: Any) -> str:
        """What is wrong with a value, '' where nothing is: 'must be at least 1'."""
        if self.least is not None and value < self.least:
            return f"must be at least {self.least}"
        if self.most is not None and value > self.most:
            return f"must be at most {self.most}"
        if self.above is not None and value <= self.above:
            return f"must be above {self.above}"
        if self.below is not None and value >= self.below:
            return f"must be below {self.below}"
        return ""


# The name's part before the dot is its group.
# fmt: off
SETTINGS = {
    "task": Setting("fundusgan", "'fundusgan' (photograph to photograph), 'prior' (StyleGAN from random styles), 'latent' (images drawn by a flow over a FundusGAN's latents), 'vessels' (segmentation) or 'classifier'",
        choices=("fundusgan", "prior", "latent", "vessels", "classifier"), network=True),
    "seed": Setting(0, "of initialisation, order of photographs and noise", least=0, below=2 ** 31),
    "deterministic": Setting(False, "the same bits on the same GPUs, at a price in speed (docs/reproducibility.md)"),

    "data.dataset": Setting("prepared", "'prepared' (photographs) or 'phantom' (rendered, nothing to bring)",
        choices=("prepared", "phantom")),
    "data.dir": Setting("", "output folder of python -m fundusgan_jax.data.prepare", may_change=True),
    "data.resolution": Setting(512, "side of the photographs in pixels, 64 to 1024", network=True),
    "data.cache": Setting("host", "'host' memory map, 'device' whole set on every device, 'none' tf.data from disk",
        choices=("none", "host", "device"), may_change=True),
    "data.flip": Setting(True, "mirror half of the photographs (a right eye becomes a left one)"),
    "data.train_split": Setting("train", "split that trains"),
    "data.eval_split": Setting("test", "held-out split that is scored"),
    "data.classes": Setting("", "classifier: names of the classes to tell apart, comma between, of two the second is positive; '' takes all of the dataset", network=True),
    "data.phantom_num": Setting(128, "patients rendered for dataset 'phantom', two eyes each", least=1),

    "model.resolution": Setting(1024, "side the generator paints, pooled to data.resolution (1024: 18 vectors, 512: 16); 0 takes data.resolution", network=True),
    "model.base_size": Setting(0, "side of the generator's first map; 0 takes data.resolution / 16", least=0, network=True),
    "model.constant_base": Setting(False, "the generator's first map is learned and the same for all photographs (StyleGAN2), in place of F_mid", network=True),
    "model.latent_channels": Setting(0, "channels (4 to 16) of the small map of a convolutional autoencoder in the place of encoder and generator, for task=latent; 0: FundusGAN as published",
        least=0, network=True),
    "model.latent_stride": Setting(4, "with latent_channels: pixels along each axis to a place of the latent, a power of two", least=2, most=16, network=True),
    "model.latent_width": Setting(48, "with latent_channels: feature maps at half the side (a multiple of 8), twice as many at each halving", least=8, network=True),
    "model.latent_blocks": Setting(1, "with latent_channels: residual blocks at each side", least=1, network=True),
    "model.latent_noise": Setting(0.1, "with latent_channels: normal noise added to the latent in training, so that the generator forgives",
        least=0, network=True),
    "model.first_dilation": Setting(0, "dilation of the first layer; 0 takes base_size / 4 (8 at 512 px, as published)", least=0, network=True),
    "model.channel_base": Setting(32768, "channels at native resolution r: min(channel_base / r, channel_max)", least=1, network=True),
    "model.channel_max": Setting(512, "see channel_base", least=1, network=True),
    "model.w_dim": Setting(512, "width of a style vector", least=1, network=True),
    "model.delta": Setting(1, "skip fusions, 0 to 7 (6 at 256 px, 4 at 64): more gives detail, less editable styles", network=True),
    "model.noise_mode": Setting("random", "'random' per sample, 'const' stored maps, 'none'", choices=("random", "const", "none")),
    "model.dtype": Setting("float32", "of convolutions in training: 'float32' or 'bfloat16'; the rest, scores stay float32; of images generate.dtype says it",
        choices=("float32", "bfloat16")),
    "model.fused_layers": Setting(False, "on NVIDIA's GPUs one kernel between two of the generator's convolutions (filter, noise, activation, modulation), not timed on one yet",
        may_change=True),
    "model.style": Setting("stylegan2", "prior: 'stylegan2' or 'adain' (StyleGAN v1, growing from growth.start)",
        choices=("stylegan2", "adain"), network=True),
    "model.z_dim": Setting(512, "prior: width of the random input", least=1, network=True),
    "model.mapping_layers": Setting(8, "prior: layers from z to w", least=1, network=True),
    "model.discriminator_mapping_layers": Setting(-1, "discriminator with labels: layers from label to its projection; below 0: mapping_layers", network=True),
    "model.num_labels": Setting(0, "prior, discriminator, latent: classes to condition on; 0 is unconditional", least=0, network=True),

    "encoder.backbone": Setting("resnet50", "resnet18, resnet34, resnet50, resnet101, resnet152",
        choices=("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), network=True),
    "encoder.norm": Setting("batch", "FundusGAN, classifier: 'batch' synchronised over devices, 'frozen' statistics, 'group'",
        choices=("batch", "frozen", "group"), network=True),
    "encoder.weights": Setting("", "FundusGAN, classifier: torchvision state dict (.pth, .npz, .safetensors); '' starts from scratch", may_change=True),
    "encoder.fpn_channels": Setting(512, "width of the feature pyramid", least=1, network=True),
    "encoder.head_channels": Setting(512, "width of the map2style heads", least=1, network=True),
    "encoder.base_gain": Setting(1.0, "initial weights of the 1x1 convolution that makes the generator's first map, over He's; 0.23 makes that map of configs/cpu.py and demo.py as large as StyleGAN2's constant (docs/ablations.md)", above=0),

    "loss.l2": Setting(1.0, "weight of the mean squared error (images in [-1, 1])", least=0),
    "loss.l1": Setting(0.0, "weight of the mean absolute error", least=0),
    "loss.lpips": Setting(0.8, "weight of the perceptual distance; 0 trains without its weights file", least=0),
    "loss.reg": Setting(0.005, "weight of the pull of w+ towards w_avg", least=0),
    "loss.adv": Setting(0.0, "weight of the adversarial term (0.1 is usual); above 0 adds a discriminator", least=0),
    "loss.adv_start": Setting(0, "FundusGAN: step after which the adversarial term and the discriminator begin", least=0),
    "loss.latent": Setting(0.001, "with latent_channels: weight of the latent's mean square, which keeps it small against its noise", least=0),
    "loss.r1_gamma": Setting(-1.0, "R1 of the discriminator; below 0: 0.0002 resolution^2 / batch_size"),
    "loss.pl_weight": Setting(2.0, "prior: weight of the path length regulariser; 0 switches it off", least=0),
    "loss.perceptual_net": Setting("vgg16", "'vgg16' (LPIPS) or 'squeezenet'", choices=("vgg16", "squeezenet")),
    "loss.perceptual_heads": Setting(False, "squeezenet: with LPIPS's heads, which makes it LPIPS (weights fetch squeezenet, fetch lpips_squeeze); vgg16 has them always"),
    "loss.vessel": Setting(0.0, "weight of the difference of vessels, by a frozen segmentation network; 0 leaves it out", least=0),
    "loss.vessel_loss": Setting("skeleton_recall", "'skeleton_recall' (with precision), 'cldice' (with Dice) or 'l1' (of the maps, without topology)",
        choices=("skeleton_recall", "cldice", "l1")),
    "loss.vessel_weights": Setting("", "file of python -m fundusgan_jax.vessels export; '' takes the one of the package"),
    "loss.vessel_side": Setting(0, "side in pixels that images are segmented at; 0 takes the network's scale, at most twice data.resolution; less costs less and sees less", least=0),
    "loss.vessel_photographs": Setting(0, "photographs of a device's batch whose vessels are compared in a step; 0 takes all; fewer cost less", least=0),
    "loss.lesion": Setting(0.0, "weight of the mean absolute error on small bright and dark spots of the photograph; 0 leaves it out", least=0),
    "loss.lesion_detail": Setting(0.0, "weight of the same in the finest bands of a Laplacian pyramid, which a blurred spot loses", least=0),
    "loss.finest_band": Setting(0.0, "weight of the mean absolute error in the finest band of a Laplacian pyramid, in the whole field of view", least=0),
    "loss.classifier": Setting(0.0, "weight of the difference of a frozen classifier's features; 0 leaves it out", least=0),
    "loss.classifier_workdir": Setting("", "workdir of that classifier, a run of configs/classifier.py at the same data.resolution"),
    "loss.perceptual_weights": Setting("", "file of its weights; '' looks in the cache folder", may_change=True),

    "loss.class_weighting": Setting("none", "classifier: 'none', 'balanced' (rare classes weigh more) or 'logit_adjusted' (the classes' shares are added to the logits in training)",
        choices=("none", "balanced", "logit_adjusted")),

    "optim.encoder_lr": Setting(0.0001, "Adam, encoder and skip fusions: learning rate", least=0),
    "optim.encoder_b1": Setting(0.9, "Adam, encoder: decay of the moments", least=0, below=1),
    "optim.encoder_b2": Setting(0.999, "Adam, encoder: decay of the moments", least=0, below=1),
    "optim.generator_lr": Setting(0.0001, "Adam, generator: learning rate", least=0),
    "optim.generator_b1": Setting(0.0, "Adam, generator: decay of the moments", least=0, below=1),
    "optim.generator_b2": Setting(0.99, "Adam, generator: decay of the moments", least=0, below=1),
    "optim.discriminator_lr": Setting(0.0001, "Adam, discriminator: learning rate", least=0),
    "optim.discriminator_b1": Setting(0.0, "Adam, discriminator: decay of the moments", least=0, below=1),
    "optim.discriminator_b2": Setting(0.99, "Adam, discriminator: decay of the moments", least=0, below=1),
    "optim.warmup_steps": Setting(0, "steps of linear rise of both rates", least=0),
    "optim.decay": Setting("constant", "'constant' or 'cosine' to zero at train.num_steps", choices=("constant", "cosine")),

    "train.batch_size": Setting(8, "photographs per step, all devices together", least=1),
    "train.num_steps": Setting(100000, "steps in all", least=1, may_change=True),
    "train.accumulate": Setting(1, "parts that a device computes a step's batch in, one after another: less memory (norm=batch: statistics of a part)",
        least=1),
    "train.remat": Setting(False, "compute activations again for the gradient instead of keeping them: less memory",
        may_change=True),
    "train.steps_per_call": Setting(1, "steps per compiled call (jax.lax.scan): less waiting for the host",
        least=1, may_change=True),
    "train.log_every": Setting(48, "steps between rows of metrics.jsonl; a multiple of r1_every shows R1 in every row",
        least=1, may_change=True),
    "train.grid_every": Setting(1000, "steps between sample grids", least=1, may_change=True),
    "train.eval_every": Setting(5000, "steps between evaluations of the held-out split", least=1, may_change=True),
    "train.checkpoint_every": Setting(1000, "steps between checkpoints", least=1, may_change=True),
    "train.keep_last": Setting(2, "newest checkpoints kept", least=1, may_change=True),
    "train.keep_best": Setting(1, "best checkpoints kept beside them", least=0, may_change=True),
    "train.best_metric": Setting("auto", "figure that ranks checkpoints, as eval.json names it; 'auto' takes the first of lpips, perceptual, ssim_fov (prior: fid, frechet; latent: flow_loss; classifier: auc) that the run has", may_change=True),
    "train.parallel": Setting("shard_map", "'shard_map' or 'pmap': the same numbers",
        choices=("shard_map", "pmap"), may_change=True),
    "train.ema_halflife_kimg": Setting(10.0, "half-life of the moving average, thousands of photographs", least=0),
    "train.ema_rampup": Setting(0.05, "half-life at most this share of the photographs seen; 0 switches it off", least=0),
    "train.freeze_generator": Setting(False, "train the encoder and the fusions alone"),
    "train.freeze_generator_blocks": Setting(0, "or leave only the generator's first blocks as they are", least=0),
    "train.freeze_discriminator": Setting(0, "first discriminator blocks (from the image on) left as they are", least=0),
    # Both are due at the end of an interval, in stylegan2-ada-pytorch at its beginning, the first step.
    "train.r1_every": Setting(16, "steps between R1 updates of the discriminator", least=1),
    "train.pl_every": Setting(4, "prior: steps between path length updates of the generator", least=1),
    "train.style_mixing": Setting(0.9, "prior: share of images with two styles", least=0, most=1),
    "train.init_from": Setting("", "workdir (or imported weights) to start from; --init_from sets it"),
    "train.on_nan": Setting("stop", "a loss or gradient that is not finite: 'stop' the run or 'skip' the step",
        choices=("stop", "skip"), may_change=True),

    "augment.mode": Setting("none", "of what the discriminator sees: 'none', 'fixed' p, 'ada' adaptive p",
        choices=("none", "fixed", "ada")),
    "augment.p": Setting(0.0, "probability of each transform (at the start, for 'ada')", least=0, most=1),
    "augment.target": Setting(0.6, "'ada': mean sign of D(real) that p is steered by"),
    "augment.kimg": Setting(500.0, "'ada': thousand images in which p can go from 0 to 1", above=0),
    "augment.every": Setting(4, "'ada': steps between changes of p", least=1),
    "augment.transforms": Setting("fundus", "'fundus' (what a camera may do) or names, comma between them"),

    "growth.start": Setting(8, "'adain': side of the first stage", network=True),
    "growth.fade_kimg": Setting(600.0, "'adain': thousand photographs in which a new size fades in", least=0, network=True),
    "growth.stable_kimg": Setting(600.0, "'adain': thousand photographs trained at each size before the next", least=0, network=True),

    "flow.patch": Setting(2, "latent: places of the latent along each axis that the velocity network sees as one, a power of two", least=1, most=4, network=True),
    "flow.channels": Setting(96, "latent: channels of the velocity network's finest level, twice as many below", least=1, network=True),
    "flow.blocks": Setting(1, "latent: residual blocks of each level", least=1, network=True),
    "flow.dropout": Setting(0.0, "latent: share of feature maps that a training step leaves out (0.1 helps few photographs)", least=0, below=1),
    "flow.learning_rate": Setting(0.0004, "latent, AdamW: learning rate", least=0),
    "flow.weight_decay": Setting(0.01, "latent, AdamW: decay of the weights", least=0),
    "flow.drop_condition": Setting(0.1, "latent: share of samples that train without class and eye, which guidance needs", least=0, most=1),
    "flow.time_mean": Setting(0.0, "latent: times are sigmoid(mean + std normal); above 0 nearer to noise"),
    "flow.time_std": Setting(1.0, "latent: see time_mean", above=0),
    "flow.sampling_steps": Setting(25, "latent: steps of Heun's method from noise to an image (--sampling_steps)", least=1, may_change=True),
    "flow.guidance": Setting(1.0, "latent: 1 draws the class as it is, above it more of what sets it apart and less variety (--guidance)", least=0, may_change=True),

    "vessels.network": Setting("wnet", "vessels: 'wnet' (two small U-Nets) or 'fpn' (ResNet-18 and a pyramid down to full resolution)",
        choices=("wnet", "fpn"), network=True),
    "vessels.width": Setting(0, "vessels: channels of the finest level; 0 takes 8 for wnet, 16 for fpn", least=0, network=True),
    "vessels.learning_rate": Setting(0.005, "vessels, Adam: learning rate", least=0),
    "vessels.degradation": Setting(0.0, "vessels: crops are made softer or sharper and noisier by up to so much, for photographs of another camera: 0 not at all, 1 as docs/vessels.md has it", least=0, most=1),
    "vessels.held_out": Setting("", "vessels: patterns of names that do not train ('*_g', comma between); '' takes the sets' own halves"),
    "vessels.fov_diameter": Setting(540, "vessels: photographs are resized to this field of view in pixels (DRIVE's); 0 leaves their size", least=0),

    "classifier.network": Setting("resnet18", "classifier: resnet18, resnet34, resnet50, resnet101, resnet152, squeezenet, mobilenet_v3_small, efficientnet_b0, densenet121",
        choices=("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "squeezenet", "mobilenet_v3_small", "efficientnet_b0", "densenet121"), network=True),
    "classifier.multi_label": Setting(False, "classifier: each label by itself (sigmoid), for photographs that have several: a class 'D;H' is the labels D and H; False: one class a photograph (softmax)", network=True),
    "classifier.width": Setting(1.0, "classifier: factor of all channels, 1 as published", above=0, most=4, network=True),
    "classifier.dropout": Setting(0.0, "classifier: share of the pooled features that a training step leaves out", least=0, below=1),
    "classifier.augment": Setting(True, "classifier: training photographs upside down half of the time, shifted up to 6.25 %, zoomed up to 10 %, turned up to 5 degrees (Kim et al.)"),
    "classifier.learning_rate": Setting(0.0005, "classifier, AdamW: learning rate", least=0),
    "classifier.weight_decay": Setting(0.05, "classifier, AdamW: decay of the kernels", least=0),

    "eval.batch_size": Setting(8, "photographs reconstructed or classified at a time, also by --mode=generate", least=1, may_change=True),
    "eval.num": Setting(0, "held-out photographs scored, evenly spread; 0 takes all", least=0),
    "eval.num_samples": Setting(2000, "prior, latent: images drawn to be scored", least=1),
    "eval.reference_split": Setting("train", "prior, latent: photographs that its images are compared with"),
    "eval.features": Setting("none", "of distances between sets: inception (FID, KID), squeezenet, vgg16, alexnet, resnet50, pixels, none",
        choices=("none", "pixels", "inception", "squeezenet", "vgg16", "alexnet", "resnet50")),
    "eval.resize": Setting("clean", "for those features: 'clean' antialiased bicubic, 'legacy' bilinear",
        choices=("clean", "legacy")),
    "eval.seed": Setting(0, "of samples, subsets and intervals", least=0, below=2 ** 31),
    "eval.memorisation": Setting(64, "--mode=eval: generated images looked up among the photographs; 0 skips it",
        least=0, may_change=True),
    "eval.vessels": Setting(64, "FundusGAN, --mode=eval: photographs whose vessels, and from 256 px small lesions, are found and compared in input and output; 0 skips it",
        least=0, may_change=True),
    "eval.vessel_weights": Setting("", "file of python -m fundusgan_jax.vessels export that finds those vessels; '' takes the one of the package", may_change=True),
    "eval.features_weights": Setting("", "file of that network's weights; '' takes loss.perceptual_weights where both are of one network, else looks in the cache folder", may_change=True),
    "eval.use_ema": Setting(True, "score and generate with the moving average of the parameters"),

    "generate.dtype": Setting("float32", "of convolutions in --mode=generate: 'float32', or 'bfloat16' for accelerators; scores are always float32",
        choices=("float32", "bfloat16"), may_change=True),

    "report.photographs": Setting(False, "report.html shows photographs and file names; without, it can be handed on", may_change=True),
}
# fmt: on


def settings_text() -> str:
    """A line for each setting, as --help prints them: its flag with the default, and the comment."""
    flags = {f"--config.{name}={setting.default}": setting for name, setting in SETTINGS.items()}
    width = max(map(len, flags))
    return "\n".join(f"  {flag:<{width}}  {setting.comment}" for flag, setting in flags.items())
