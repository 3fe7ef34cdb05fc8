"""Every setting with its default: FundusGAN as published (arXiv 2503.17831), decisions of ours where it is silent."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults; other configurations change a few lines of them."""
    config = ConfigDict()
    config.task = (
        "fundusgan"  # 'fundusgan' (photograph to photograph) or 'prior' (StyleGAN from random styles)
    )
    config.seed = 0  # of initialisation, order of photographs and noise
    config.deterministic = (
        False  # the same bits on the same GPUs, at a price in speed (docs/reproducibility.md)
    )

    config.data = data = ConfigDict()
    data.dataset = "prepared"  # 'prepared' (photographs) or 'phantom' (rendered, nothing to bring)
    data.dir = ""  # output folder of python -m fundusgan_jax.data.prepare
    data.resolution = 512  # side of the photographs in pixels, 64 to 1024
    data.cache = "host"  # 'host' memory map, 'device' whole set on every device, 'none' tf.data from disk
    data.flip = True  # mirror half of the photographs (a right eye becomes a left one)
    data.train_split = "train"  # split that trains
    data.eval_split = "test"  # held-out split that is scored
    data.phantom_num = 128  # patients rendered for dataset 'phantom', two eyes each

    config.model = model = ConfigDict()
    model.resolution = (
        1024  # side the generator paints; pooled to data.resolution (1024: 18 vectors, 512: 16)
    )
    model.base_size = 0  # side of the generator's first map; 0 takes data.resolution / 16
    model.first_dilation = 0  # dilation of the first layer; 0 takes base_size / 4 (8 at 512 px, as published)
    model.channel_base = 32768  # channels at native resolution r: min(channel_base / r, channel_max)
    model.channel_max = 512  # see channel_base
    model.w_dim = 512  # width of a style vector
    model.delta = 1  # skip fusions, 0 to 7 (6 at 256 px, 4 at 64): more gives detail, less editable styles
    model.noise_mode = "random"  # 'random' per sample, 'const' stored maps, 'none'
    model.dtype = "float32"  # of convolutions in training: 'float32' or 'bfloat16'; the rest, scores and generation stay float32
    model.style = "stylegan2"  # prior: 'stylegan2' or 'adain' (StyleGAN v1, growing from growth.start)
    model.z_dim = 512  # prior: width of the random input
    model.mapping_layers = 8  # prior: layers from z to w
    model.discriminator_mapping_layers = (
        -1  # discriminator with labels: layers from label to its projection; below 0: mapping_layers
    )
    model.num_labels = 0  # prior, discriminator: classes to condition on; 0 is unconditional

    config.encoder = encoder = ConfigDict()
    encoder.backbone = "resnet50"  # resnet18, resnet34, resnet50, resnet101, resnet152
    encoder.norm = "batch"  # 'batch' synchronised over devices, 'frozen' statistics, 'group'
    encoder.weights = ""  # torchvision state dict (.pth, .npz, .safetensors); '' starts from scratch
    encoder.fpn_channels = 512  # width of the feature pyramid
    encoder.head_channels = 512  # width of the map2style heads

    config.loss = loss = ConfigDict()
    loss.l2 = 1.0  # weight of the mean squared error (images in [-1, 1])
    loss.lpips = 0.8  # weight of the perceptual distance; 0 trains without its weights file
    loss.reg = 0.005  # weight of the pull of w+ towards w_avg
    loss.adv = 0.0  # weight of the adversarial term (0.1 is usual); above 0 adds a discriminator
    loss.r1_gamma = -1.0  # R1 of the discriminator; below 0: 0.0002 resolution^2 / batch_size
    loss.pl_weight = 2.0  # prior: weight of the path length regulariser; 0 switches it off
    loss.perceptual_net = "vgg16"  # 'vgg16' (LPIPS) or 'squeezenet'
    loss.perceptual_weights = ""  # file of its weights; '' looks in the cache folder

    config.optim = optim = ConfigDict()
    optim.encoder_lr = 1e-4  # Adam, encoder and skip fusions
    optim.encoder_b1 = 0.9
    optim.encoder_b2 = 0.999
    optim.generator_lr = 1e-4  # Adam, generator
    optim.generator_b1 = 0.0
    optim.generator_b2 = 0.99
    optim.discriminator_lr = 1e-4  # Adam, discriminator
    optim.discriminator_b1 = 0.0  # as the generator
    optim.discriminator_b2 = 0.99  # as the generator
    optim.warmup_steps = 0  # steps of linear rise of both rates
    optim.decay = "constant"  # 'constant' or 'cosine' to zero at train.num_steps

    config.train = train = ConfigDict()
    train.batch_size = 8  # photographs per step, all devices together
    train.num_steps = 100_000  # steps in all
    train.accumulate = 1  # parts that a device computes a step's batch in, one after another: less memory (norm=batch: statistics of a part)
    train.remat = False  # compute activations again for the gradient instead of keeping them: less memory
    train.steps_per_call = 1  # steps per compiled call (jax.lax.scan): less waiting for the host
    train.log_every = 48  # steps between rows of metrics.jsonl; a multiple of r1_every shows R1 in every row
    train.grid_every = 1000  # steps between sample grids
    train.eval_every = 5000  # steps between evaluations of the held-out split
    train.checkpoint_every = 1000  # steps between checkpoints
    train.keep_last = 2  # newest checkpoints kept
    train.keep_best = 1  # best checkpoints kept beside them
    train.best_metric = "lpips"  # what 'best' means: lpips, ssim, psnr, ssim_fov, psnr_fov
    train.parallel = "shard_map"  # 'shard_map' or 'pmap': the same numbers
    train.ema_halflife_kimg = 10.0  # half-life of the moving average, thousands of photographs
    train.ema_rampup = 0.05  # half-life at most this share of the photographs seen; 0 switches it off
    train.freeze_generator = False  # train the encoder and the fusions alone
    train.freeze_generator_blocks = 0  # or leave only the generator's first blocks as they are
    train.freeze_discriminator = 0  # first discriminator blocks (from the image on) left as they are
    # Both are due at the end of an interval, in stylegan2-ada-pytorch at its beginning, the first step.
    train.r1_every = 16  # steps between R1 updates of the discriminator
    train.pl_every = 4  # prior: steps between path length updates of the generator
    train.style_mixing = 0.9  # prior: share of images with two styles
    train.init_from = ""  # workdir (or imported weights) to start from; --init_from sets it
    train.on_nan = "stop"  # a loss or gradient that is not finite: 'stop' the run or 'skip' the step

    config.augment = augment = ConfigDict()
    augment.mode = "none"  # of what the discriminator sees: 'none', 'fixed' p, 'ada' adaptive p
    augment.p = 0.0  # probability of each transform (at the start, for 'ada')
    augment.target = 0.6  # 'ada': mean sign of D(real) that p is steered by
    augment.kimg = 500.0  # 'ada': thousand images in which p can go from 0 to 1
    augment.every = 4  # 'ada': steps between changes of p
    augment.transforms = "fundus"  # 'fundus' (what a camera may do) or names, comma between them

    config.growth = growth = ConfigDict()
    growth.start = 8  # 'adain': side of the first stage
    growth.fade_kimg = 600.0  # 'adain': thousand photographs in which a new size fades in
    growth.stable_kimg = 600.0  # 'adain': thousand photographs trained at each size before the next

    config.eval = evaluation = ConfigDict()
    evaluation.batch_size = 8  # photographs reconstructed at a time, also by --mode=generate
    evaluation.num = 0  # held-out photographs scored, evenly spread; 0 takes all
    evaluation.num_samples = 2000  # prior: images drawn to be scored
    evaluation.reference_split = "train"  # prior: photographs that its images are compared with
    evaluation.features = "none"  # of distances between sets: inception (FID, KID), squeezenet, vgg16, alexnet, resnet50, pixels, none
    evaluation.resize = "clean"  # for those features: 'clean' antialiased bicubic, 'legacy' bilinear
    evaluation.seed = 0  # of samples, subsets and intervals
    evaluation.memorisation = 64  # --mode=eval: generated images looked up among the photographs; 0 skips it
    evaluation.features_weights = ""  # file of that network's weights; '' looks in the cache folder
    evaluation.use_ema = True  # score and generate with the moving average of the parameters

    config.report = report = ConfigDict()
    report.photographs = False  # report.html shows photographs and file names; without, it can be handed on
    return config.lock()
