// Closes the region that a simd_begin_*.hpp opened.
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef PLUMB_DOT  // of the region's vec_*.inl.hpp
