// The changes of tiles and taps along one side into values of polynomials at points, and back; see winograd.c.
//
// Pixels and taps are coefficients, and the places are the values at 0, two pairs of points, in float a third, and infinity, with
// factors on the side of the input (but see KERNEL_NEAR): of a place its row is the polynomial that vanishes at all the others,
// divided by its value there; of infinity, that which vanishes everywhere else. `from` and `to` are lanes, `step` and `stride`
// numbers apart.

#ifndef POINTS
#define POINTS

#include "vector.h"

// Pixels of tiles along a side, and places of the largest.
#ifdef FLOAT
enum { SMALL = 4, LARGE = 6 };
#else
enum { SMALL = 4, LARGE = 4 };  // with 6 pixels the rounding of what is changed to bf16 would leave 4 % of error
#endif
enum { REACH = LARGE + 2, PLACES = REACH * REACH, INFINITE = REACH - 1, LANES = 16 };  // LANES: channels of a panel

typedef float lanes[LANES];

// The points beside 0: NEAR, -NEAR, FAR, -FAR, in float 1/2 and -1/2. Points that are no whole numbers lose fewer digits (Alam et
// al. 2022, https://arxiv.org/abs/2201.10369): of what is rounded to bf16 these leave 1.0 % of error where 1 and 2 leave 2.3 %.
#ifdef FLOAT
#define NEAR 1.0f
#define FAR 2.0f
#else
#define NEAR 0.625f
#define FAR 1.5f
#endif
#define NEAR_2 (NEAR * NEAR)
#define FAR_2 (FAR * FAR)
#define GAP (FAR_2 - NEAR_2)

// Factors of the places of NEAR and FAR: those of the input of a tile of six, and those of the kernel, which is changed once for
// all tiles. In bf16, where most tiles have six places, the kernel has them all; in float other tiles would need others.
#ifdef FLOAT
#define INPUT_NEAR (1 / (2 * NEAR_2 * GAP))
#define INPUT_FAR (1 / (2 * FAR_2 * GAP))
#define KERNEL_NEAR 1.0f
#define KERNEL_FAR 1.0f
#else
#define INPUT_NEAR 1.0f
#define INPUT_FAR 1.0f
#define KERNEL_NEAR (1 / (2 * NEAR_2 * GAP))
#define KERNEL_FAR (1 / (2 * FAR_2 * GAP))
#endif

// Tells the compiler how many there can be, so that in bf16 nothing is left of what larger tiles need.
INLINE void within(long count, long least, long most) {
  if (count < least || count > most) __builtin_unreachable();
}

// Five pixels of the input at five of six places, all but infinity.
INLINE void of_five(vector d0, vector d1, vector d2, vector d3, vector d4, vector places[5]) {
  vector even = d2 * FAR_2 - d4, odd = d1 * FAR_2 - d3, far_even = d4 - d2 * NEAR_2, far_odd = d3 - d1 * NEAR_2;
  places[0] = d0 - d2 * (1 / NEAR_2 + 1 / FAR_2) + d4 * (1 / (NEAR_2 * FAR_2));
  places[1] = (even + odd * NEAR) * INPUT_NEAR, places[2] = (even - odd * NEAR) * INPUT_NEAR;
  places[3] = (far_even + far_odd * FAR) * INPUT_FAR, places[4] = (far_even - far_odd * FAR) * INPUT_FAR;
}

// As many pixels of the input, `d`, as places.
INLINE void of_input(const vector d[REACH], float *to, long stride, long places) {
  within(places, 2, REACH);
  vector d0 = d[0], d1 = d[1], d2 = {0}, d3 = {0}, d4 = {0}, d5 = {0}, d6 = {0}, d7 = {0};
  if (places > 2) d2 = d[2];
  if (places > 3) d3 = d[3];
  if (places > 4) d4 = d[4];
  if (places > 5) d5 = d[5];
  if (places > 6) d6 = d[6];
  if (places > 7) d7 = d[7];
  if (places == 2) {
    store(to, d0);
    store(to + INFINITE * stride, d1);
  } else if (places == 3) {
    store(to, d0 - d1 * (1 / NEAR));
    store(to + stride, d1 * (1 / (NEAR * KERNEL_NEAR)));
    store(to + INFINITE * stride, d2 - d1 * NEAR);
  } else if (places == 4) {
    store(to, d0 - d2 * (1 / NEAR_2));
    store(to + stride, (d2 + d1 * NEAR) * (1 / (2 * NEAR_2 * KERNEL_NEAR)));
    store(to + 2 * stride, (d2 - d1 * NEAR) * (1 / (2 * NEAR_2 * KERNEL_NEAR)));
    store(to + INFINITE * stride, d3 - d1 * NEAR_2);
  } else if (places == 5) {
    store(to, d0 - d2 * (1 / NEAR_2) + (d3 * (1 / NEAR_2) - d1) * (1 / FAR));
    store(to + stride, (d1 * (NEAR * FAR) + d2 * (FAR - NEAR) - d3) * (1 / (2 * NEAR_2 * (FAR - NEAR) * KERNEL_NEAR)));
    store(to + 2 * stride, (d2 * (FAR + NEAR) - d1 * (NEAR * FAR) - d3) * (1 / (2 * NEAR_2 * (FAR + NEAR) * KERNEL_NEAR)));
    store(to + 3 * stride, (d3 - d1 * NEAR_2) * (1 / (FAR * GAP * KERNEL_FAR)));
    store(to + INFINITE * stride, d4 - d2 * NEAR_2 + (d1 * NEAR_2 - d3) * FAR);
  } else if (places == 6) {
    vector five[5];
    of_five(d0, d1, d2, d3, d4, five);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) store(to + i * stride, five[i]);
    store(to + INFINITE * stride, d1 * (NEAR_2 * FAR_2) - d3 * (NEAR_2 + FAR_2) + d5);
  } else if (places == 7) {  // those of six, times (x - 1/2)
    vector here[5], next[5], half = d1 * 4.0f - d3 * 5.0f + d5;
    of_five(d0, d1, d2, d3, d4, here);
    of_five(d1, d2, d3, d4, d5, next);
    store(to, here[0] - next[0] * 2.0f);
    store(to + stride, next[1] * 2.0f - here[1]);
    store(to + 2 * stride, (here[2] - next[2] * 2.0f) * (1 / 3.0f));
    store(to + 3 * stride, (next[3] * 2.0f - here[3]) * (1 / 3.0f));
    store(to + 4 * stride, here[4] * 0.2f - next[4] * 0.4f);
    store(to + 5 * stride, half * (32 / 45.0f));
    store(to + INFINITE * stride, d2 * 4.0f - d4 * 5.0f + d6 - half * 0.5f);
  } else if (places == 8) {
    vector even = (d4 * 4.25f - d2 - d6) * (2 / 9.0f), odd = (d3 * 4.25f - d1 - d5) * (2 / 9.0f);
    vector far_even = (d2 * 0.25f - d4 * 1.25f + d6) * (1 / 90.0f), far_odd = (d1 * 0.25f - d3 * 1.25f + d5) * (1 / 45.0f);
    vector half_even = (d2 * 4.0f - d4 * 5.0f + d6) * (32 / 45.0f), half_odd = (d1 * 4.0f - d3 * 5.0f + d5) * (16 / 45.0f);
    store(to, d0 - d6 + (d4 - d2) * 5.25f);
    store(to + stride, even + odd);
    store(to + 2 * stride, even - odd);
    store(to + 3 * stride, far_even + far_odd);
    store(to + 4 * stride, far_even - far_odd);
    store(to + 5 * stride, half_even + half_odd);
    store(to + 6 * stride, half_even - half_odd);
    store(to + INFINITE * stride, d7 - d1 + (d3 - d5) * 5.25f);
  }
}

// The places of a product -> `pixels`, at most LARGE: the coefficients of a polynomial whose values they sum up.
INLINE void of_products(const float *from, long step, float *to, long stride, long places, long pixels) {
  within(places, 2, REACH), within(pixels, 1, LARGE);
  for (const float *end = from + LANES; from < end; from += WIDTH, to += WIDTH) {
    vector m0 = load(from), last = load(from + INFINITE * step);
    vector m1 = {0}, m2 = {0}, m3 = {0}, m4 = {0}, m5 = {0}, m6 = {0};
    if (places > 2) m1 = load(from + step);
    if (places > 3) m2 = load(from + 2 * step);
    if (places > 4) m3 = load(from + 3 * step);
    if (places > 5) m4 = load(from + 4 * step);
    if (places > 6) m5 = load(from + 5 * step);
    if (places > 7) m6 = load(from + 6 * step);
    vector even = m1 + m2, odd = m1 - m2, far_even = m3 + m4, far_odd = m3 - m4, half_even = m5 + m6, half_odd = m5 - m6;
    vector y0 = m0 + even + far_even + half_even;
    store(to, pixels == 1 ? y0 + last : y0);
    vector y1 = odd * NEAR + far_odd * FAR + half_odd * 0.5f;
    if (pixels > 1) store(to + stride, pixels == 2 ? y1 + last : y1);
    vector y2 = even * NEAR_2 + far_even * FAR_2 + half_even * 0.25f;
    if (pixels > 2) store(to + 2 * stride, pixels == 3 ? y2 + last : y2);
    vector y3 = odd * (NEAR_2 * NEAR) + far_odd * (FAR_2 * FAR) + half_odd * 0.125f;
    if (pixels > 3) store(to + 3 * stride, pixels == 4 ? y3 + last : y3);
    vector y4 = even + far_even * 16.0f + half_even * 0.0625f;  // from here on only in float
    if (pixels > 4) store(to + 4 * stride, pixels == 5 ? y4 + last : y4);
    if (pixels > 5) store(to + 5 * stride, odd + far_odd * 32.0f + half_odd * 0.03125f + last);
  }
}

// `pixels` of an output's gradient, at most LARGE, which are the coefficients -> all places but those of 1/2 for a small tile.
INLINE void of_gradient(const vector g[REACH], float *to, long stride, long pixels) {
  within(pixels, 1, LARGE);
  vector g0 = g[0], g1 = {0}, g2 = {0}, g3 = {0}, g4 = {0}, g5 = {0};
  if (pixels > 1) g1 = g[1];
  if (pixels > 2) g2 = g[2];
  if (pixels > 3) g3 = g[3];
  if (pixels > 4) g4 = g[4];
  if (pixels > 5) g5 = g[5];
  vector even = g0 + g2 * NEAR_2 + g4, odd = g1 * NEAR + g3 * (NEAR_2 * NEAR) + g5;
  vector far_even = g0 + g2 * FAR_2 + g4 * 16.0f, far_odd = g1 * FAR + g3 * (FAR_2 * FAR) + g5 * 32.0f;
  store(to, g0);
  store(to + stride, even + odd);
  store(to + 2 * stride, even - odd);
  store(to + 3 * stride, far_even + far_odd);
  store(to + 4 * stride, far_even - far_odd);
  if (pixels > SMALL) {
    vector half_even = g0 + g2 * 0.25f + g4 * 0.0625f, half_odd = g1 * 0.5f + g3 * 0.125f + g5 * 0.03125f;
    store(to + 5 * stride, half_even + half_odd);
    store(to + 6 * stride, half_even - half_odd);
  }
  store(to + INFINITE * stride, g[pixels - 1]);
}

// Two taps and a zero, or three -> all places; and back for the gradient.
INLINE void of_taps(const float *from, long step, float *to, long stride, long taps) {
  for (const float *end = from + LANES; from < end; from += WIDTH, to += WIDTH) {
    vector k0 = load(from), k1 = load(from + step), k2 = load(from + 2 * step);
    vector even = k0 + k2 * NEAR_2, far_even = k0 + k2 * FAR_2;
    store(to, k0);
    store(to + stride, (even + k1 * NEAR) * KERNEL_NEAR);
    store(to + 2 * stride, (even - k1 * NEAR) * KERNEL_NEAR);
    store(to + 3 * stride, (far_even + k1 * FAR) * KERNEL_FAR);
    store(to + 4 * stride, (far_even - k1 * FAR) * KERNEL_FAR);
    if (LARGE > SMALL) {
      store(to + 5 * stride, k0 + k2 * 0.25f + k1 * 0.5f);
      store(to + 6 * stride, k0 + k2 * 0.25f - k1 * 0.5f);
    }
    store(to + INFINITE * stride, taps == 2 ? k1 : k2);
  }
}

INLINE void of_places(const float *from, long step, float *to, long stride, long taps) {
  for (const float *end = from + LANES; from < end; from += WIDTH, to += WIDTH) {
    vector m1 = load(from + step) * KERNEL_NEAR, m2 = load(from + 2 * step) * KERNEL_NEAR;
    vector m3 = load(from + 3 * step) * KERNEL_FAR, m4 = load(from + 4 * step) * KERNEL_FAR;
    vector m5 = {0}, m6 = {0}, last = load(from + INFINITE * step);
    if (LARGE > SMALL) m5 = load(from + 5 * step), m6 = load(from + 6 * step);
    vector even = m1 + m2, far_even = m3 + m4, half_even = m5 + m6;
    store(to, load(from) + even + far_even + half_even);
    vector second = (m1 - m2) * NEAR + (m3 - m4) * FAR + (m5 - m6) * 0.5f;
    store(to + stride, taps == 2 ? second + last : second);
    if (taps == 3) store(to + 2 * stride, even * NEAR_2 + far_even * FAR_2 + half_even * 0.25f + last);
  }
}

#endif
