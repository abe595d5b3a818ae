// The activations of maps, and their slopes.

#ifndef ACTIVATION
#define ACTIVATION

#include "number.h"

enum activation { NONE, RELU, SILU, GELU, LEAKY_RELU };

static const float leaky_slope = 0.2f;  // TensorFlow's default

INLINE float exp_minus(float x) {  // e^-x for x >= 0, to 2e-7 of it; from 87 on what it is at 87, 1e-38
  uint32_t bits = bits_of(x), most = 0x42ae0000;  // 87; compared as whole numbers, which compilers turn into vectors
  x = of_bits(bits < most ? bits : most);
  int k = (int)(x * 1.44269504f + 0.5f);  // the nearest whole power of two
  float r = (float)k * 0.693147181f - x;  // |r| <= ln 2 / 2, where six terms of the series suffice
  float e = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * (0.00833333333f + r * 0.00138888889f)))));
  return e * of_bits((uint32_t)(127 - k) << 23);
}

// Without branches, so that the loops below become vectors: what lies in the tail beyond |z| is taken from the nearer side.
INLINE float from_tail(float tail, float z) { return 0.5f + __builtin_copysignf(0.5f - tail, z); }

// What lies in the tails of a standard normal, for u = |z|, as polynomials in v = u / 2.5 - 1 up to 5 and none beyond: without
// the exponential and the division that took most of the time. scripts/fit_gelu.py finds them.
enum { BOUND = 5 };

INLINE float beyond(float tail, float u) { return u >= BOUND ? 0.0f : tail; }  // a NaN stays one

INLINE float normal_tail(float u) {  // the probability beyond u; times u it is right to 2e-6
  float v = u * (2.0f / BOUND) - 1.0f;
  return 0.0062101339f + v * (-0.0438184552f + v * (0.136887804f + v * (-0.239690617f + v * (0.232712075f + v *
         (-0.0649934858f + v * (-0.131226346f + v * (0.161724314f + v * (-0.023785539f + v * (-0.0761316121f + v *
         (0.0392532088f + v * (0.0128977299f + v * -0.0100391936f)))))))))));
}

INLINE float gelu_slope_tail(float u) {  // the derivative of GELU at -u, to 6e-6; at u it is 1 less this
  float v = u * (2.0f / BOUND) - 1.0f;
  return -0.0376074202f + v * (0.186183125f + v * (-0.308491826f + v * (-0.0294628236f + v * (0.839803219f + v *
         (-1.16249645f + v * (0.207232088f + v * (1.04443133f + v * (-0.884949028f + v * (-0.256744087f + v *
         (0.558833718f + v * (-0.0660225078f + v * (-0.124829628f + v * 0.0341078192f))))))))))));
}

INLINE float sigmoid(float z) {
  float e = exp_minus(__builtin_fabsf(z));
  return from_tail(e / (1.0f + e), z);
}

INLINE float activate(float z, enum activation kind) {
  switch (kind) {
    case RELU: return z < 0 ? 0 : z;
    case SILU: return z * sigmoid(z);
    case GELU: {
      float u = __builtin_fabsf(z);
      return z * from_tail(beyond(normal_tail(u), u), z);
    }
    case LEAKY_RELU: return z < 0 ? leaky_slope * z : z;
    default: return z;
  }
}

INLINE float slope(float z, enum activation kind) {  // of `activate`
  switch (kind) {
    case RELU: return z > 0 ? 1.0f : 0.0f;
    case SILU: {
      float s = sigmoid(z);
      return s * (1.0f + z * (1.0f - s));
    }
    case GELU: {
      float u = __builtin_fabsf(z);
      return from_tail(beyond(gelu_slope_tail(u), u), z);
    }
    case LEAKY_RELU: return z > 0 ? 1.0f : leaky_slope;
    default: return 1.0f;
  }
}

// `does` with the activation as a constant, so that each loop in it is compiled for one.
#define FOR_ACTIVATION(kind, does) \
  switch (kind) { \
    case RELU: does(RELU); break; \
    case SILU: does(SILU); break; \
    case GELU: does(GELU); break; \
    case LEAKY_RELU: does(LEAKY_RELU); break; \
    default: does(NONE); \
  }

#endif
