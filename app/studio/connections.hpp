// Bounds on the connections of a server that reads with time limits of a single read only: one that
// sends a byte now and then would hold its thread for hours, and a line without an end would fill
// the memory. A connection that is too old or has sent too much is closed for reading; an answer
// that is under way is still written.
#pragma once

#include <cstdint>
#include <memory>

namespace plumb { inline namespace v0_1 {

struct ConnectionLimits {
  double seconds = 20.0;            ///< of life; a browser opens another connection then
  std::uint64_t bytes = 2'000'000;  ///< received in all
};

/// Watches this process's connections to a local port while it lives.
class ConnectionWatch {
 public:
  ConnectionWatch(int port, ConnectionLimits limits);
  ~ConnectionWatch();
  ConnectionWatch(const ConnectionWatch&) = delete;
  ConnectionWatch& operator=(const ConnectionWatch&) = delete;

  /// How old the connection from this port of the other side is, seconds; 0 if it is new.
  double age(int peer_port) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}}  // namespace plumb::v0_1
