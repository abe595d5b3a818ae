// Mirroring, cropping and jitter of training images; see augment.py.

#include "number.h"

// Where pixel `at` of a line of `length` lies, reflected at the ends, which are not repeated.
INLINE long reflected(long at, long length) { return at < 0 ? -at : at >= length ? 2 * (length - 1) - at : at; }

// The part of 255 that each of `count` values is.
INLINE void to_parts(float *values, long count) {
#pragma omp simd
  for (long k = 0; k < count; k++) values[k] /= 255;
}

INLINE void jitter(float *values, long count, float mean, float brightness, float contrast) {
#pragma omp simd
  for (long k = 0; k < count; k++) {
    float value = (values[k] - mean) * (1 + contrast) + mean + brightness;
    values[k] = value < 0 ? 0 : value > 1 ? 1 : value;
  }
}

// images: N C H W bytes -> y: N H W C floats in [0, 1]. An image is mirrored where `mirrored` says, then padded by reflection and
// cut at the row and column of `corners`, 2 N; where there are `draws`, 2 N in [-1, 1], brightness and contrast change by up to
// `strength`.
void augment(const uint8_t *images, const uint8_t *mirrored, const int64_t *corners, const float *draws, float *y, long count,
             long channels, long height, long width, long padding, double strength, long threads) {
  long plane = height * width, values = channels * plane;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long n = 0; n < count; n++) {
    long columns[width], sum = 0;
    for (long j = 0; j < width; j++) {
      long column = reflected(j + corners[count + n] - padding, width);
      columns[j] = mirrored[n] ? width - 1 - column : column;
    }
    float *image = y + n * values, *to = image;
    for (long i = 0; i < height; i++) {
      const uint8_t *row = images + n * values + reflected(i + corners[n] - padding, height) * width;
      for (long j = 0; j < width; j++)
        for (long c = 0; c < channels; c++) {
          uint8_t value = row[c * plane + columns[j]];
          *to++ = value;
          sum += value;
        }
    }
    to_parts(image, values);
    if (draws)
      jitter(image, values, (float)((double)sum / (255.0 * (double)values)), (float)strength * draws[n],
             (float)strength * draws[count + n]);
  }
}
