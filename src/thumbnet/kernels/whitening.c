// A convolution of pictures of few channels, a bias and an activation, in one pass over memory; see whitening.py.
//
// Pictures are floats, N H W C, so that each row of a patch is S C numbers that follow each other. F filters make F sums of each
// patch, and those of a row of the output are all made before they are activated.

#include "activation.h"
#include "vector.h"

#include <stdlib.h>

enum { AT_ONCE = 8 };  // pixels whose sums are in registers

struct stem {
  long height, width, channels, side, filters, rows, columns;  // rows x columns of the output
  const float *taps, *bias;  // a line of `whole` numbers for each of the S S C taps, and one of the biases; zeros at its end
  long whole;
};

// The sums of `count` pixels, at most AT_ONCE, for WIDTH filters from `first` on. Those beyond the last filter land on the next
// pixel.
INLINE void add_pixels(const struct stem *s, const float *patch, long first, long count, float *sums) {
  vector sum[AT_ONCE], bias = load(s->bias + first);
  const float *line = s->taps + first;
  for (long p = 0; p < count; p++) sum[p] = bias;
  for (long r = 0; r < s->side; r++)
    for (long k = 0; k < s->side * s->channels; k++, line += s->whole) {
      vector tap = load(line);
      IN_REGISTER(tap);
      for (long p = 0; p < count; p++) sum[p] += patch[r * s->width * s->channels + p * s->channels + k] * tap;
    }
  for (long p = 0; p < count; p++) store(sums + p * s->filters + first, sum[p]);
}

// The sums of a row of the output, columns x F, and WIDTH numbers beyond it that mean nothing.
static void add_row(const struct stem *s, const float *picture, long i, float *sums) {
  const float *row = picture + i * s->width * s->channels;
  // The last filters first, so that what lands on the next pixel is overwritten.
  for (long first = s->whole - WIDTH; first >= 0; first -= WIDTH) {
    long j = 0;
    for (; j + AT_ONCE <= s->columns; j += AT_ONCE)
      add_pixels(s, row + j * s->channels, first, AT_ONCE, sums + j * s->filters);
    for (; j < s->columns; j++) add_pixels(s, row + j * s->channels, first, 1, sums + j * s->filters);
  }
}

// filters F S S C and bias F -> `taps` and `bias` of a stem, in memory that the caller frees; nothing where there is none.
static float *prepare(struct stem *s, const float *filters, const float *bias) {
  long taps = s->side * s->side * s->channels;
  s->whole = up_to(s->filters, WIDTH);
  float *lines = calloc((size_t)((taps + 1) * s->whole), sizeof(float));
  if (!lines) return lines;
  for (long f = 0; f < s->filters; f++) {
    for (long tap = 0; tap < taps; tap++) lines[tap * s->whole + f] = filters[f * taps + tap];
    lines[taps * s->whole + f] = bias[f];
  }
  s->taps = lines, s->bias = lines + taps * s->whole;
  return lines;
}

INLINE void activate_row(const float *sums, number *y, long count, enum activation kind) {
#pragma omp simd
  for (long k = 0; k < count; k++) y[k] = narrow(activate(sums[k], kind));
}

// x: N H W C floats, filters: F S S C, bias: F -> y = activation(...), N H-S+1 W-S+1 F. Gives 1 where memory is missing.
long whiten(const float *x, const float *filters, const float *bias, number *y, long images, long height, long width,
            long channels, long side, long outputs, long kind, long threads) {
  struct stem s = {height, width, channels, side, outputs, height - side + 1, width - side + 1, 0, 0, 0};
  float *lines = prepare(&s, filters, bias);
  if (!lines) return 1;
  long row = s.columns * s.filters, failed = 0;
#pragma omp parallel num_threads(threads)
  {
    float *sums = malloc((size_t)(row + WIDTH) * sizeof(float));
    if (!sums) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(static)
    for (long n = 0; n < images; n++)
      for (long i = 0; sums && i < s.rows; i++) {
        number *to = y + (n * s.rows + i) * row;
        add_row(&s, x + n * height * width * channels, i, sums);
#define FORWARD(kind) activate_row(sums, to, row, kind)
        FOR_ACTIVATION(kind, FORWARD)
      }
    free(sums);
  }
  free(lines);
  return failed;
}

INLINE void add_slopes(const float *sums, const number *gradient, float *total, long count, enum activation kind) {
#pragma omp simd
  for (long k = 0; k < count; k++) total[k] += wide(gradient[k]) * slope(sums[k], kind);
}

// The same and the gradient of y -> that of the bias, of each image: N F. The sums are made once more, since they are floats of
// the size of y.
long whiten_backward(const float *x, const float *filters, const float *bias, const number *gradient, float *of_bias, long images,
                     long height, long width, long channels, long side, long outputs, long kind, long threads) {
  struct stem s = {height, width, channels, side, outputs, height - side + 1, width - side + 1, 0, 0, 0};
  float *lines = prepare(&s, filters, bias);
  if (!lines) return 1;
  long row = s.columns * s.filters, failed = 0;
#pragma omp parallel num_threads(threads)
  {
    float *sums = malloc((size_t)(2 * row + WIDTH) * sizeof(float)), *total = sums + row + WIDTH;
    if (!sums) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(static)
    for (long n = 0; n < images; n++) {
      if (!sums) continue;
      memset(total, 0, (size_t)row * sizeof(float));
      for (long i = 0; i < s.rows; i++) {
        const number *from = gradient + (n * s.rows + i) * row;
        add_row(&s, x + n * height * width * channels, i, sums);
#define BACKWARD(kind) add_slopes(sums, from, total, row, kind)
        FOR_ACTIVATION(kind, BACKWARD)
      }
      for (long f = 0; f < outputs; f++) {
        float sum = 0;
        for (long j = 0; j < s.columns; j++) sum += total[j * outputs + f];
        of_bias[n * outputs + f] = sum;
      }
    }
    free(sums);
  }
  free(lines);
  return failed;
}
