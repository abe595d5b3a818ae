"""The classic pre-activation program in Keras, timed: the peer that `classic_throughput.py` compares with.

Written from the report's description for this measurement. Runs in a virtual environment of its own, since TensorFlow
need not share one with PyTorch:

    python3 -m venv peer && peer/bin/pip install tensorflow-cpu scipy
    peer/bin/python benchmarks/keras_peer.py images.npz --steps 40
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

L2 = keras.regularizers.L2(0.001)
STAGES = ((3, 64, 256, 1), (4, 128, 512, 2), (6, 256, 1024, 2), (3, 512, 2048, 2))


def convolution(width, kernel, stride=1):
    padding = "same" if kernel == 3 else "valid"
    return layers.Conv2D(width, kernel, strides=stride, padding=padding, kernel_regularizer=L2)


def block(x, width, channels_out, stride, project):
    y = convolution(width, 1, stride)(tf.keras.layers.LeakyReLU(0.2)(layers.BatchNormalization()(x)))
    y = convolution(width, 3)(tf.keras.layers.LeakyReLU(0.2)(layers.BatchNormalization()(y)))
    y = convolution(channels_out, 1)(layers.ReLU()(layers.BatchNormalization()(y)))
    if project:
        x = convolution(channels_out, 1, stride)(layers.ReLU()(layers.BatchNormalization()(x)))
    return layers.Add()([y, x])


def classic_model(classes):
    images = layers.Input((32, 32, 3))
    x = layers.Conv2D(64, 7, strides=2)(layers.ZeroPadding2D(3)(images))
    x = layers.MaxPooling2D(3, strides=2)(layers.ReLU()(layers.BatchNormalization()(x)))
    for blocks, width, channels_out, stride in STAGES:
        for index in range(blocks):
            x = block(x, width, channels_out, stride if index == 0 else 1, project=index == 0)
    x = layers.Flatten()(layers.AveragePooling2D(2, padding="same")(x))
    x = layers.Dense(classes, activation="softmax", kernel_initializer="he_normal")(x)
    model = keras.Model(images, x)
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"])
    return model


def generator():
    return tf.keras.preprocessing.image.ImageDataGenerator(
        zoom_range=0.2, width_shift_range=0.15, height_shift_range=0.15, horizontal_flip=True
    )


class StepTimes(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def time_augmentation(images, labels, batch_size, batches):
    flow = generator().flow(images, labels, batch_size=batch_size)
    next(flow)
    start = time.perf_counter()
    for _ in range(batches):
        next(flow)
    return batches * batch_size / (time.perf_counter() - start)


def time_training(images, labels, batch_size, steps, warm_up=8):
    """Images per second of `fit` fed by the generator, wall time of the steps after the warm-up, as its user would wait."""
    model, times = classic_model(10), StepTimes()
    flow = generator().flow(images, labels, batch_size=batch_size)
    model.fit(flow, steps_per_epoch=warm_up, epochs=1, verbose=0)
    start = time.perf_counter()
    model.fit(flow, steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[times])
    return steps * batch_size / (time.perf_counter() - start), statistics.median(times.seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="npz with images uint8 N 32 32 3 and labels")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    with np.load(arguments.images, allow_pickle=False) as stored:
        images, labels = stored["images"].astype("float32") / 255, stored["labels"]
    augmentation = time_augmentation(images, labels, arguments.batch_size, batches=100)
    throughput, median = time_training(images, labels, arguments.batch_size, arguments.steps)
    result = {
        "peer": f"tensorflow {tf.__version__}, keras {keras.__version__}, numpy {np.__version__}",
        "images_per_second": round(throughput, 1),
        "median_step_seconds": round(median, 4),
        "augmentation_images_per_second": round(augmentation),
        "steps": arguments.steps,
        "batch_size": arguments.batch_size,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
