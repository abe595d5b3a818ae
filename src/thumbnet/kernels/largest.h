// Max-pooling by 2 x 2, of a map as it lies or of a tile.

#ifndef LARGEST
#define LARGEST

#include "vector.h"

// The largest of 2 x 2 pixels and which it was (0 to 3, the first of equals); a NaN is the largest of all.
INLINE float largest(float first, float right, float below, float across, uint8_t *place) {
  uint32_t at = 0;
  at = (right > first) | (right != right) ? 1 : at;
  first = at == 1 ? right : first;
  at = (below > first) | (below != below) ? 2 : at;
  first = at == 2 ? below : first;
  at = (across > first) | (across != across) ? 3 : at;
  *place = (uint8_t)at;
  return at == 3 ? across : first;
}

#if defined __AVX512BW__ && defined __AVX512VL__

// Where `other` is larger than what is the largest so far, it and its place instead; a NaN is.
INLINE void keep_larger(__m512 *largest, __m128i *place, __m512 other, int of_other) {
  __mmask16 larger = _mm512_cmp_ps_mask(other, *largest, _CMP_GT_OQ) | _mm512_cmp_ps_mask(other, other, _CMP_UNORD_Q);
  *largest = _mm512_mask_mov_ps(*largest, larger, other);
  *place = _mm_mask_mov_epi8(*place, larger, _mm_set1_epi8((char)of_other));
}

#endif

// The same of vectors.
INLINE vector largest_of(vector first, vector right, vector below, vector across, uint8_t *places) {
#if defined __AVX512BW__ && defined __AVX512VL__
  __m512 best = (__m512)first;
  __m128i place = _mm_setzero_si128();
  keep_larger(&best, &place, (__m512)right, 1);
  keep_larger(&best, &place, (__m512)below, 2);
  keep_larger(&best, &place, (__m512)across, 3);
  _mm_storeu_si128((__m128i *)places, place);
  return (vector)best;
#else
  vector best;
  for (int i = 0; i < WIDTH; i++) best[i] = largest(first[i], right[i], below[i], across[i], places + i);
  return best;
#endif
}

#endif
