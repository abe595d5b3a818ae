// Convolutions in the tile registers of Intel AMX; see tile_convolution.py.
//
// For 32 places and 32 output channels, all taps of all input channels are added up in four tiles: pixels x channels times
// channels x output channels. The 32 places follow each other, or are 16 of one row and the 16 below them, whose maxima are taken
// before anything is written.

#include "largest.h"
#include "places.h"

#ifdef TILES

enum {
  CHUNK = 1 << 19,  // numbers of the images that a thread works on: half of its second cache, beside 32 output channels' kernels
  STREAMED = 1 << 23,  // numbers of an output that no cache holds
  UNITS_OF_A_THREAD = 4,  // at least
};

// Sixteen floats, `apart` from each other -> bf16, in the low halves of sixteen numbers.
INLINE __m512i gathered(const float *from, __m512i apart, __mmask16 part) {
  __m512 values = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), part, apart, from, sizeof(float));
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(values));
}

// kernel D C S S of floats -> tiles of pairs of input channels x 16 output channels: [blocks out][blocks in][taps][two tiles].
// Where `turned`, the kernel is C D S S, and its taps count backward.
static void tiles_of_kernel(const float *kernel, bf16 *tiles, long in, long out, long side, long turned, long threads) {
  long taps = side * side, apart_out = turned ? taps : in * taps, apart_in = turned ? out * taps : taps;
  __m512i apart = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                     _mm512_set1_epi32((int)apart_out));
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long unit = 0; unit < blocks_of(out) * blocks_of(in); unit++) {
    long first_out = unit / blocks_of(in) * BLOCK, first_in = unit % blocks_of(in) * BLOCK;
    bf16 *to = tiles + unit * taps * 2 * TILE;
    for (long tap = 0; tap < taps; tap++)
      for (long half = 0; half < BLOCK; half += 16)
        for (long k = 0; k < BLOCK; k += 2, to += BLOCK) {
          long width = out - first_out - half;
          __mmask16 part = width >= 16 ? 0xffff : width > 0 ? (1 << width) - 1 : 0;
          const float *from = kernel + (first_out + half) * apart_out + (first_in + k) * apart_in;
          from += turned ? taps - 1 - tap : tap;
          __m512i even = gathered(from, apart, first_in + k < in ? part : 0);
          __m512i odd = gathered(from + apart_in, apart, first_in + k + 1 < in ? part : 0);
          _mm512_store_si512(to, _mm512_or_epi32(even, _mm512_slli_epi32(odd, 16)));
        }
  }
}

// A convolution as in places.h. Where there is `chosen`, x is the gradient of what was max-pooled by 2 x 2; where there is
// `which`, y is pooled: which of the four was the largest, 0 to 3 by rows.
struct maps {
  struct convolution c;
  const bf16 *x, *tiles;
  const uint8_t *chosen;
  const float *bias;
  bf16 *y;
  uint8_t *which;
  long blocks, taps, columns, chunk, between;  // of input channels; columns between images; images at once; blocks apart
  int stream;                                  // past the caches, so that what is overwritten need not be read
};

// What a thread works on: images at their places, the pixel of each place of the output, how far away each tap is.
struct work {
  struct layout l;
  float *sums;
  bf16 *placed;
  int *pixels;
  long *shifts;
};

// The sums of 32 places for 32 output channels, 16 of them `below` numbers after the others. Meanwhile as many lines as there are
// steps are fetched from `ahead`, where the kernel goes on.
static void add_up(const struct maps *m, const bf16 *placed, long below, const bf16 *kernel, const bf16 *ahead,
                   const struct work *w) {
  const long line = BLOCK * sizeof(bf16), row = BLOCK * sizeof(float);
  float *sums = w->sums;
  __asm__ volatile("" ::: "memory");  // gcc does not know that a tile is loaded from memory: what was stored is to be there
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (long b = 0; b < m->blocks; b++, placed += m->between) {
    if (b) _tile_stored(0, sums, row);  // only for speed: after 30 steps without one, the next takes 300 ns (docs/findings.md)
    for (long tap = 0; tap < m->taps; tap++, kernel += 2 * TILE, ahead += BLOCK) {
      const bf16 *from = placed + w->shifts[tap];
      _mm_prefetch((const char *)ahead, _MM_HINT_T1);
      _tile_loadd(4, from, line);
      _tile_loadd(6, kernel, line);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, kernel + TILE, line);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, from + below, line);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, row);
  _tile_stored(1, sums + 16, row);
  _tile_stored(2, sums + 16 * BLOCK, row);
  _tile_stored(3, sums + 16 * BLOCK + 16, row);
  __asm__ volatile("" ::: "memory");
}

INLINE void store_block(const struct maps *m, bf16 *to, __m512 low, __m512 high, __mmask32 part) {
  __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
  if (m->stream) _mm512_stream_si512((__m512i *)to, both);
  else _mm512_mask_storeu_epi16(to, part, both);
}

// 32 sums of 32 output channels from `block` on -> their pixels, those that have one; y begins at the first image.
static void put(const struct maps *m, const float *sums, const int *pixels, long first, long block) {
  long channels = m->c.channels_out, pixels_of_image = m->which ? (m->c.rows / 2) * (m->c.columns / 2) : m->c.rows * m->c.columns;
  long begin = first * pixels_of_image * channels + block * BLOCK;
  __mmask32 part = part_of_block(channels - block * BLOCK);
  __m512 bias[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  if (m->bias)
    for (int half = 0; half < 2; half++)
      bias[half] = _mm512_maskz_loadu_ps((__mmask16)(part >> 16 * half), m->bias + block * BLOCK + 16 * half);
  if (!m->which)
    for (long p = 0; p < BLOCK; p++, sums += BLOCK)
      if (pixels[p] >= 0)
        store_block(m, m->y + begin + pixels[p] * channels, _mm512_add_ps(_mm512_load_ps(sums), bias[0]),
                    _mm512_add_ps(_mm512_load_ps(sums + 16), bias[1]), part);
  if (m->which)
    for (long p = 0; p < BLOCK / 4; p++, sums += 2 * BLOCK)
      if (pixels[p] >= 0) {
        __m512 largest[2];
        __m128i which[2];
        for (int half = 0; half < 2; half++) {
          const float *of = sums + 16 * half;
          largest[half] = _mm512_load_ps(of), which[half] = _mm_setzero_si128();
          keep_larger(largest + half, which + half, _mm512_load_ps(of + BLOCK), 1);
          keep_larger(largest + half, which + half, _mm512_load_ps(of + 16 * BLOCK), 2);
          keep_larger(largest + half, which + half, _mm512_load_ps(of + 17 * BLOCK), 3);
        }
        long at = begin + pixels[p] * channels;
        store_block(m, m->y + at, _mm512_add_ps(largest[0], bias[0]), _mm512_add_ps(largest[1], bias[1]), part);
        _mm256_mask_storeu_epi8(m->which + at, part, _mm256_set_m128i(which[1], which[0]));
      }
}

// Images to their places, in blocks of channels. The zeros are there already.
static void spread(const struct maps *m, const struct work *w, long first) {
  const struct convolution *c = &m->c;
  long by = m->chosen ? 2 : 1, height = c->height / by, width = c->width / by, at = first * height * width * c->channels;
  for (long n = 0; n < w->l.images; n++)
    for (long i = 0; i < height; i++)
      for (long j = 0; j < width; j++, at += c->channels) {
        fetch(m->x + at, c->channels * (long)sizeof(bf16));
        bf16 *place = w->placed + (first_place(c, w->l) + by * i * w->l.line + n * w->l.stride + by * j) * BLOCK;
        for (long b = 0; b < m->blocks; b++, place += m->between)
          put_block(m->x, m->chosen, at, b, c->channels, place, w->l.line);
      }
}

// The pixel of each place of the output, -1 where there is none; where it is pooled, of each 2 x 2, with rows of whole tiles.
static void find_pixels(const struct maps *m, const struct work *w) {
  const struct convolution *c = &m->c;
  int *to = w->pixels;
  long by = m->which ? 2 : 1, rows = c->rows / by, columns = c->columns / by;
  for (long i = 0; i < rows; i++)
    for (long p = 0; p < (m->which ? up_to(w->l.line, 16) : w->l.line); p += by) {
      long n = p / w->l.stride, j = p % w->l.stride / by;
      *to++ = n < w->l.images && j < columns ? (int)((n * rows + i) * columns + j) : -1;
    }
  for (long p = 0; p < BLOCK; p++) *to++ = -1;
}

// All output channels from block `from` on of the images of `w`, which begin with image `first`.
static void convolve_chunk(const struct maps *m, const struct work *w, long first, long from, long to) {
  const struct convolution *c = &m->c;
  long steps = m->blocks * m->taps;
  for (long d = from; d < to; d++) {
    const bf16 *kernel = m->tiles + d * steps * 2 * TILE, *ahead = kernel + steps * 2 * TILE;
    if (m->which)
      for (long i = 0, whole = up_to(w->l.line, 16); i < c->rows / 2; i++)
        for (long p = 0; p < w->l.line; p += 16, ahead += steps * BLOCK) {
          add_up(m, w->placed + (2 * i * w->l.line + p) * BLOCK, w->l.line * BLOCK, kernel, ahead, w);
          put(m, w->sums, w->pixels + (i * whole + p) / 2, first, d);
        }
    else
      for (long p = 0; p < c->rows * w->l.line; p += BLOCK, ahead += steps * BLOCK) {
        add_up(m, w->placed + p * BLOCK, TILE, kernel, ahead, w);
        put(m, w->sums, w->pixels + p, first, d);
      }
  }
}

// All images, by all threads. Gives 1 where memory is missing.
static long convolve(const struct maps *m, long threads) {
  const struct convolution *c = &m->c;
  struct layout most = lay_out(c, m->chunk, m->chunk, m->columns);
  long chunks = (c->images + m->chunk - 1) / m->chunk, outs = blocks_of(c->channels_out);
  long parts = smaller((threads + chunks - 1) / chunks, outs);  // of the output channels, where chunks are fewer than threads
  long places = c->rows * up_to(most.line, 16) + BLOCK, failed = 0;
#pragma omp parallel num_threads(threads)
  {
    long shifts[m->taps];
    struct work w = {.shifts = shifts};
    w.sums = room(BLOCK * BLOCK * (long)sizeof(float) + m->blocks * m->between * (long)sizeof(bf16) + places * (long)sizeof(int));
    w.placed = (bf16 *)(w.sums + BLOCK * BLOCK);
    w.pixels = (int *)(w.placed + m->blocks * m->between);
    struct tiles before = set_up_tiles();
    if (!w.sums) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp barrier
    if (!failed) {
#pragma omp for schedule(dynamic)
      for (long unit = 0; unit < chunks * parts; unit++) {
        long first = unit / parts * m->chunk, count = smaller(m->chunk, c->images - first), part = unit % parts;
        if (count != w.l.images) {
          w.l = lay_out(c, count, count, m->columns);
          memset(w.placed, 0, (size_t)(m->blocks * m->between) * sizeof(bf16));
          find_pixels(m, &w);
          for (long tap = 0; tap < m->taps; tap++) shifts[tap] = tap_place(c, w.l, tap) * BLOCK;
        }
        spread(m, &w, first);
        convolve_chunk(m, &w, first, outs * part / parts, outs * (part + 1) / parts);
      }
    }
    _mm_sfence();
    leave_tiles(&before);
    free(w.sums);
  }
  return failed;
}

// x: N H W C, kernel: D C S S floats, bias: D floats or null -> y: N H' W' D, padded by `padding`; N H'/2 W'/2 D where there is
// `which`. Where `turned`, the kernel is C D S S and turned round, as the gradient of an input needs it; where there is `chosen`,
// x is N H/2 W/2 C. Gives 1 where memory is missing.
long tile_convolution(const bf16 *x, const uint8_t *chosen, const float *kernel, const float *bias, bf16 *y, uint8_t *which,
                      long images, long height, long width, long channels, long channels_out, long side, long padding,
                      long turned, long threads) {
  struct convolution c = {images, height, width, channels, height + 2 * padding - side + 1, width + 2 * padding - side + 1,
                          channels_out, side, padding};
  long blocks = blocks_of(channels), taps = side * side;
  bf16 *tiles = room(blocks * blocks_of(channels_out) * taps * 2 * TILE * (long)sizeof(bf16));
  if (!tiles) return 1;
  tiles_of_kernel(kernel, tiles, channels, channels_out, side, turned, threads);
  struct maps m = {c, x, tiles, chosen, bias, y, which, blocks, taps, padding, 0, 0, 0};
  if (which) m.columns += (width + padding) % 2;  // then each 2 x 2 begins at an even place
  long of_one = input_places(&c, lay_out(&c, 1, 1, m.columns)) * blocks * BLOCK;
  m.chunk = larger(1, smaller(CHUNK / of_one, (images + UNITS_OF_A_THREAD * threads - 1) / (UNITS_OF_A_THREAD * threads)));
  // An odd number of lines, so that a pixel's blocks lie in different sets of the caches.
  m.between = ((input_places(&c, lay_out(&c, m.chunk, m.chunk, m.columns)) + 2 * BLOCK) | 1) * BLOCK;
  long written = images * c.rows * c.columns * channels_out / (which ? 4 : 1);
  m.stream = channels_out % BLOCK == 0 && (uintptr_t)y % 64 == 0 && written >= STREAMED;
  long failed = convolve(&m, threads);
  free(tiles);
  return failed;
}

#endif
