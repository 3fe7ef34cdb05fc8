"""Every setting with its default: FundusGAN as published (arXiv 2503.17831), decisions of ours where it is silent."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults; other configurations change a few lines of them."""
    config = ConfigDict()
    config.seed = 0  # of initialisation, order of photographs and noise

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
    model.delta = 1  # synthesis blocks with a skip fusion, 0 to 7: more gives detail, less editable styles
    model.noise_mode = "random"  # 'random' per sample, 'const' stored maps, 'none'

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
    loss.perceptual_net = "vgg16"  # 'vgg16' (LPIPS) or 'squeezenet'
    loss.perceptual_weights = ""  # file of its weights; '' looks in the cache folder

    config.optim = optim = ConfigDict()
    optim.encoder_lr = 1e-4  # Adam, encoder and skip fusions
    optim.encoder_b1 = 0.9
    optim.encoder_b2 = 0.999
    optim.generator_lr = 1e-4  # Adam, generator
    optim.generator_b1 = 0.0
    optim.generator_b2 = 0.99
    optim.warmup_steps = 0  # steps of linear rise of both rates
    optim.decay = "constant"  # 'constant' or 'cosine' to zero at train.num_steps

    config.train = train = ConfigDict()
    train.batch_size = 8  # photographs per step, all devices together
    train.num_steps = 100_000  # steps in all
    train.log_every = 50  # steps between rows of metrics.jsonl
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

    config.eval = evaluation = ConfigDict()
    evaluation.batch_size = 8  # photographs reconstructed at a time, also by --mode=generate
    evaluation.num = 0  # held-out photographs scored, evenly spread; 0 takes all
    evaluation.use_ema = True  # score and generate with the moving average of the parameters
    return config.lock()
