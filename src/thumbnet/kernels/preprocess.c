// Images resized and normalised in one pass; see preprocess.py.

#include "number.h"

#include <omp.h>
#include <stdlib.h>

// Where a pixel of a line of `to` lies in one of `from`: between two neighbours, `part` of the way to the second. Bilinear, with
// pixels' centres at halves, as torch has it.
struct neighbours {
  int first, second;
  float part;
};

INLINE struct neighbours neighbours_of(long at, long from, long to) {
  float place = ((float)at + 0.5f) * ((float)from / (float)to) - 0.5f;
  place = place < 0 ? 0 : place;
  int first = (int)place;
  return (struct neighbours){first, (int)smaller(first + 1, from - 1), place - (float)first};
}

// Of the numbers of a row of the result, columns x C: where those lie that it is between, and the moments of its channel.
struct row {
  int *first, *second;
  float *part, *mean, *deviation;
};

static struct row describe(char *memory, const float *mean, const float *deviation, long width, long columns, long channels) {
  long numbers = columns * channels;
  struct row r = {(int *)memory, (int *)memory + numbers, (float *)memory + 2 * numbers, (float *)memory + 3 * numbers,
                  (float *)memory + 4 * numbers};
  for (long j = 0; j < columns; j++) {
    struct neighbours n = neighbours_of(j, width, columns);
    for (long c = 0; c < channels; c++) {
      long k = j * channels + c;
      r.first[k] = (int)(n.first * channels + c), r.second[k] = (int)(n.second * channels + c), r.part[k] = n.part;
      r.mean[k] = mean[c], r.deviation[k] = deviation[c];
    }
  }
  return r;
}

INLINE void normalize(const float *values, const struct row *r, float *to, long numbers) {
#pragma omp simd
  for (long k = 0; k < numbers; k++) to[k] = (values[k] - r->mean[k]) / r->deviation[k];
}

// A row between two of the image, `part` of the way to the second; `line` has room for a row of the image.
INLINE void resize_and_normalize(const float *first, const float *second, float part, const struct row *r, float *line, float *to,
                                 long whole, long numbers) {
#pragma omp simd
  for (long k = 0; k < whole; k++) line[k] = first[k] * (1 - part) + second[k] * part;
#pragma omp simd
  for (long k = 0; k < numbers; k++) {
    float value = line[r->first[k]] * (1 - r->part[k]) + line[r->second[k]] * r->part[k];
    to[k] = (value - r->mean[k]) / r->deviation[k];
  }
}

// x: N H W C floats -> y: N rows columns C, less the mean and divided by the deviation of each channel. Gives 1 where memory is
// missing.
long preprocess(const float *x, const float *mean, const float *deviation, float *y, long images, long height, long width,
                long channels, long rows, long columns, long threads) {
  long whole = width * channels, numbers = columns * channels, resized = rows != height || columns != width;
  char *memory = malloc((size_t)(5 * numbers) * sizeof(float));
  float *lines = malloc((size_t)(threads * whole) * sizeof(float));
  if (memory && lines) {
    struct row r = describe(memory, mean, deviation, width, columns, channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long n = 0; n < images; n++) {
      float *line = lines + omp_get_thread_num() * whole;
      for (long i = 0; i < rows; i++) {
        const float *image = x + n * height * whole;
        float *to = y + (n * rows + i) * numbers;
        struct neighbours b = neighbours_of(i, height, rows);
        if (resized)
          resize_and_normalize(image + b.first * whole, image + b.second * whole, b.part, &r, line, to, whole, numbers);
        else normalize(image + i * whole, &r, to, numbers);
      }
    }
  }
  long failed = !memory || !lines;
  free(memory);
  free(lines);
  return failed;
}
