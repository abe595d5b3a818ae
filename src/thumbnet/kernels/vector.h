// As many floats as the processor adds and multiplies at once.

#ifndef VECTOR
#define VECTOR

#include "number.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
enum { WIDTH = 16 };
#else
enum { WIDTH = 8 };
#endif

typedef float vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector value) { *(vector *)to = value; }

typedef uint32_t bits_vector __attribute__((vector_size(WIDTH * sizeof(uint32_t))));

#if defined __AVX512BW__ && defined __AVX512VL__
INLINE __mmask16 first_of(long count) { return (__mmask16)(count < WIDTH ? (1 << count) - 1 : 0xffff); }
#endif

// As many numbers of a map, or the first few, at least one, and zeros; in bf16 where the processor multiplies it. What intrinsics
// say in one instruction gcc makes of halves.
#ifdef FLOAT
INLINE vector load_numbers(const number *from, long count) {
  if (count >= WIDTH) return load(from);
  float some[WIDTH] = {0};
  for (long i = 0; i < count; i++) some[i] = from[i];
  return load(some);
}
INLINE void store_numbers(number *to, vector value) { store(to, value); }
#elif defined __AVX512BF16__ && defined __AVX512VL__
INLINE vector load_numbers(const number *from, long count) {
  return (vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_of(count), from)), 16);
}
INLINE void store_numbers(number *to, vector value) {
  _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
}
#endif

// Those of a vector, or of the first few, at least one, whose byte is `here`; zeros else.
INLINE vector keep_where(const uint8_t *bytes, uint8_t here, vector value, long count) {
#if defined __AVX512BW__ && defined __AVX512VL__
  __mmask16 chosen = _mm_cmpeq_epi8_mask(_mm_maskz_loadu_epi8(first_of(count), bytes), _mm_set1_epi8((char)here));
  return (vector)_mm512_maskz_mov_ps(chosen, (__m512)value);
#else
  typedef uint8_t byte_vector __attribute__((vector_size(WIDTH), aligned(1)));
  byte_vector some = {0};
  if (count >= WIDTH) some = *(const byte_vector *)bytes;
  else memcpy(&some, bytes, (size_t)count);
  bits_vector chosen = (bits_vector)(__builtin_convertvector(some, bits_vector) == here);
  return (vector)((bits_vector)value & chosen);
#endif
}

// gcc would read a line again for every product, and reading, not multiplying, would set the pace.
#ifdef __AVX__
#define IN_REGISTER(value) __asm__("" : "+x"(value))
#else
#define IN_REGISTER(value)
#endif

#endif
