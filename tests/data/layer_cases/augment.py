"""Augmentations and noise: in inference the identity, whatever their arguments, but for AutoContrast."""

from __future__ import annotations

from keras import layers as L

IMAGE = (5, 4, 3)
RANGES = ((-0.1, 0.3), 0.2)

CASES = {
    "gaussian_noise": (L.GaussianNoise(0.3, seed=1), IMAGE),
    "gaussian_noise_none": (L.GaussianNoise(0.0), (7,)),
    "gaussian_dropout": (L.GaussianDropout(0.3), IMAGE),
    "alpha_dropout": (L.AlphaDropout(0.3), (7,)),
    "alpha_dropout_noise_shape": (L.AlphaDropout(0.3, noise_shape=(None, 1, 1, 3)), IMAGE),
    "dropout_none": (L.Dropout(0.0), IMAGE),
    "spatial_dropout_2d_first": (L.SpatialDropout2D(0.3, data_format="channels_first"), IMAGE),
    "spatial_dropout_3d": (L.SpatialDropout3D(0.3), (2, 3, 4, 5)),
    "spatial_dropout_3d_first": (L.SpatialDropout3D(0.3, data_format="channels_first"), (2, 3, 4, 5)),
    "flip": (L.RandomFlip("vertical", seed=3), IMAGE),
    "flip_first": (L.RandomFlip(data_format="channels_first"), IMAGE),
    "translation": (L.RandomTranslation(*RANGES, fill_mode="wrap", interpolation="nearest"), IMAGE),
    "translation_first": (L.RandomTranslation(0.1, 0.2, data_format="channels_first"), IMAGE),
    "rotation": (L.RandomRotation(0.2, fill_mode="constant", fill_value=0.5), IMAGE),
    "rotation_range": (L.RandomRotation((-0.2, 0.4), interpolation="nearest"), IMAGE),
    "zoom": (L.RandomZoom(0.2), IMAGE),
    "zoom_range": (L.RandomZoom(*RANGES, fill_mode="nearest"), IMAGE),
    "shear": (L.RandomShear(0.1, 0.2), IMAGE),
    "shear_range": (L.RandomShear((0.1, 0.2), (0.0, 0.3)), IMAGE),
    "perspective": (L.RandomPerspective(0.5, 0.4, interpolation="nearest", fill_value=0.2), IMAGE),
    "brightness": (L.RandomBrightness(0.3), IMAGE),
    "brightness_range": (L.RandomBrightness((-0.1, 0.3), value_range=(-1, 1)), IMAGE),
    "contrast": (L.RandomContrast(0.3), IMAGE),
    "contrast_range": (L.RandomContrast((0.1, 0.3), value_range=(0, 1)), IMAGE),
    "grayscale": (L.RandomGrayscale(0.7), IMAGE),
    "colour_degeneration": (L.RandomColorDegeneration(0.3), IMAGE),
    "invert": (L.RandomInvert(0.3), IMAGE),
    "sharpness": (L.RandomSharpness((0.2, 0.6), value_range=(0, 1)), IMAGE),
    "erasing": (L.RandomErasing(0.3, scale=(0.1, 0.2), fill_value=(1, 2, 3)), IMAGE),
    "posterization": (L.RandomPosterization(3), IMAGE),
    "saturation": (L.RandomSaturation(0.3), IMAGE),
    "hue": (L.RandomHue(0.3), IMAGE),
    "colour_jitter": (L.RandomColorJitter(brightness_factor=0.3, hue_factor=(0.1, 0.2)), IMAGE),
    "gaussian_blur": (L.RandomGaussianBlur(0.5, kernel_size=(3, 5), sigma=(0.1, 0.5)), IMAGE),
    "elastic": (L.RandomElasticTransform(0.5), IMAGE),
    "solarization": (L.Solarization(0.3, 0.4), IMAGE),
    "mix_up": (L.MixUp(0.3), IMAGE),
    "cut_mix": (L.CutMix(0.3), IMAGE),
    "rand_augment": (L.RandAugment(), IMAGE),
    "aug_mix": (L.AugMix(), IMAGE),
    "auto_contrast": (L.AutoContrast(), IMAGE),
    "auto_contrast_range": (L.AutoContrast(value_range=(-1, 1)), IMAGE),
    "auto_contrast_first": (L.AutoContrast(data_format="channels_first"), (3, 5, 4)),
}
