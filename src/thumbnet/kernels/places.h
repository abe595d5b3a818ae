// Images side by side, with zeros between them, in blocks of 32 channels: what convolutions in tiles work on.
//
// `across` images lie in a line, and lines of images below each other. Pixel (i, j) of image n of the output has the place
// n / across * period + i * line + n % across * stride + j, that of the input lies `first_place` further on. So a tap of a kernel
// is a distance between two places, the same for all pixels, and a tile takes pixels of several rows and images.

#ifndef PLACES_H
#define PLACES_H

#include "tiles.h"

#ifdef TILES

#include <stdlib.h>

struct convolution {
  long images, height, width, channels, rows, columns, channels_out, side, padding;  // rows x columns of the output
};

struct layout {
  long images, across, stride, line, period;
};

// With so many columns of zeros between images, the padding at least: what is right of an image is left of the next one.
INLINE struct layout lay_out(const struct convolution *c, long images, long across, long columns) {
  long stride = c->width + columns, line = across * stride;
  return (struct layout){images, across, stride, line, (c->height + c->padding) * line};
}

INLINE long lines_of(struct layout l) { return (l.images + l.across - 1) / l.across; }

// Of the input, zeros around it included; what a tap reaches from any place of the output is among them.
INLINE long input_places(const struct convolution *c, struct layout l) {
  return lines_of(l) * l.period + c->side * (l.line + 1);
}

INLINE long tap_place(const struct convolution *c, struct layout l, long tap) { return tap / c->side * l.line + tap % c->side; }

INLINE long first_place(const struct convolution *c, struct layout l) { return c->padding * (l.line + 1); }

INLINE long blocks_of(long channels) { return (channels + BLOCK - 1) / BLOCK; }

INLINE __mmask32 part_of_block(long channels) {
  return channels >= BLOCK ? ~(__mmask32)0 : ((__mmask32)1 << channels) - 1;
}

INLINE __m512i block_of(const bf16 *pixel, long block, long channels) {
  return _mm512_maskz_loadu_epi16(part_of_block(channels - block * BLOCK), pixel + block * BLOCK);
}

// A block of the pixel that begins at number `at` -> its place. Where there is `chosen`, it is a gradient that came through
// max-pooling by 2 x 2: to where it came from of four places, and zeros to the others.
INLINE void put_block(const bf16 *map, const uint8_t *chosen, long at, long block, long channels, bf16 *place, long line) {
  __m512i pixel = block_of(map + at, block, channels);
  if (!chosen) {
    _mm512_store_si512(place, pixel);
    return;
  }
  __m256i which = _mm256_maskz_loadu_epi8(part_of_block(channels - block * BLOCK), chosen + at + block * BLOCK);
  for (int k = 0; k < 4; k++)
    _mm512_store_si512(place + (k / 2 * line + k % 2) * BLOCK,
                       _mm512_maskz_mov_epi16(_mm256_cmpeq_epi8_mask(which, _mm256_set1_epi8((char)k)), pixel));
}

INLINE void *room(long bytes) { return aligned_alloc(64, (size_t)up_to(bytes, 64)); }

#endif

#endif
