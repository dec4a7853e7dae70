// Convolutions on a CPU in float32: every convolution of the family as products of matrices in registers.
//
// Images are (N, H, W, C) with any distance between pixels, so that a branch writes straight into its slice of a
// concatenation. Where it saves multiplications, a convolution goes through transforms. Bias, residual sum and ReLU are
// in the last pass.
//
// This file has what Python calls; the headers have the kernels, and all are compiled as one.

#include <algorithm>
#include <cstdint>
#include <omp.h>

#include "steps.h"
#include "product.h"
#include "winograd.h"
#include "layers.h"
#include "filters.h"

namespace {

// Calls use(MH, RH, MW, RW, S), as types, for the kernel of a step.
template <class Use>
void dispatch(const Step& s, Use use) {
  const auto is = [&](int mh, int rh, int mw, int rw, int stride) {
    return s.tile_height == mh && s.kernel_height == rh && s.tile_width == mw && s.kernel_width == rw &&
           s.stride_height == stride;
  };
#define TRY(MH, RH, MW, RW, S) \
  if (is(MH, RH, MW, RW, S)) return use.template operator()<MH, RH, MW, RW, S>();
  TRY(1, 1, 4, 3, 1) TRY(4, 3, 1, 1, 1) TRY(1, 1, 6, 3, 1) TRY(6, 3, 1, 1, 1) TRY(1, 1, 4, 7, 1) TRY(4, 7, 1, 1, 1)
  TRY(1, 1, 6, 7, 1) TRY(6, 7, 1, 1, 1) TRY(4, 3, 4, 3, 1) TRY(6, 3, 6, 3, 1) TRY(2, 5, 2, 5, 1) TRY(4, 5, 4, 5, 1)
  TRY(3, 3, 3, 3, 2) TRY(4, 3, 4, 3, 2) TRY(5, 3, 5, 3, 2)
#undef TRY
}

struct Forward {
  const Step& s;
  int chunk, group;
  float* scratch;
  template <int MH, int RH, int MW, int RW, int S>
  void operator()() const { winograd<MH, RH, MW, RW, S>(s, chunk, group, scratch); }
};

struct Gradient {
  const Step& s;
  const Filters& f;
  float *memory, *gradient;
  template <int MH, int RH, int MW, int RW, int S>
  void operator()() const {
    if constexpr (S == 1) filters_gradient<MH, RH, MW, RW>(s, f, memory, gradient);
  }
};

}  // namespace

extern "C" {

int32_t lanes() { return LANES; }
int32_t rows() { return ROWS; }
int32_t step_size() { return sizeof(Step); }
int32_t filters_size() { return sizeof(Filters); }
int32_t threads_of_openmp() { return omp_get_max_threads(); }

// Filters at all points (or taps) in the order of the products: by panels of output channels, in each by point, then
// input channel, then the channels of the panel.
void pack(const Filters* filters, float* packed, int32_t threads) {
  const int panels = (filters->out_channels + PANEL - 1) / PANEL, blocks = (filters->channels + LANES - 1) / LANES;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int task = 0; task < panels * blocks; task++)
    pack_block(*filters, task / blocks, task % blocks * LANES, packed);
}

// Floats that `gradient` needs.
int64_t gradient_memory(const Step* s, int32_t points, int64_t tiles, int32_t threads) {
  const int64_t most = (tiles + s->chunks - 1) / s->chunks;
  return points * (plane(most * s->channels) + plane(most * s->out_channels) +
                   plane(int64_t(s->channels) * s->out_channels)) +
         threads * plane(points * std::max(s->channels, s->out_channels));
}

// The gradient of the filters, into memory with their strides; see filters_gradient.
void gradient(const Step* s, const Filters* filters, float* memory, float* to, int32_t threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  dispatch(*s, Gradient{*s, *filters, memory, to});
}

// The steps, one after another, each shared by the threads. Every thread has `scratch_size` floats of its own.
void run(const Step* steps, int32_t count, int32_t threads, float* scratch, int64_t scratch_size) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    float* own = scratch + omp_get_thread_num() * scratch_size;
    for (int n = 0; n < count; n++) {
      const Step& s = steps[n];
#pragma omp for schedule(dynamic)
      for (int task = 0; task < s.chunks * s.groups; task++) {
        const int chunk = task / s.groups, group = task % s.groups;
        switch (s.kind) {
          case CONVOLUTION: convolution(s, chunk, group); break;
          case WINOGRAD: dispatch(s, Forward{s, chunk, group, own}); break;
          case MAX_POOL: pool<false>(s, chunk); break;
          case AVERAGE_POOL: pool<true>(s, chunk); break;
          case PAD: pad(s, chunk); break;
          case RESPONSE_NORM: response_norm(s, chunk, own); break;
        }
      }
    }
  }
}
}
