"""The formula as a user would write it in TensorFlow's ops, with the step in float32."""

import tensorflow as tf


def formula(
    global_step: tf.Tensor | tf.Variable, mode: str, base_lr: float, max_lr: float, step_size: float, gamma: float
) -> tf.Tensor:
    """The rate: cycle = floor(1 + step / (2 step_size)), x = |step / step_size - 2 cycle + 1|, and so on."""
    step = tf.cast(global_step, tf.float32)
    cycle = tf.floor(1 + step / (2 * step_size))
    x = tf.abs(step / step_size - 2 * cycle + 1)
    height = (max_lr - base_lr) * tf.maximum(0.0, 1 - x)
    if mode == "triangular2":
        height /= tf.cast(tf.pow(2, tf.cast(cycle - 1, tf.int32)), tf.float32)
    elif mode == "exp_range":
        height *= tf.pow(gamma, step)
    return base_lr + height
