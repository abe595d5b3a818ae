// Max-pooling by 2 x 2, of a map as it lies or of a tile.

#ifndef LARGEST
#define LARGEST

#include "number.h"

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

#endif
