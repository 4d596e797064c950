#include "connections.hpp"

#include <arpa/inet.h>
#include <dirent.h>
#include <linux/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kBetweenLooks{100};

int port_of(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET)
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return -1;
}

// The other side's port, if it is a connection that this process's server has accepted; else -1.
int accepted(int fd, int port) {
  sockaddr_storage here{}, peer{};
  socklen_t size = sizeof here, peer_size = sizeof peer;
  const bool ours = ::getsockname(fd, reinterpret_cast<sockaddr*>(&here), &size) == 0 &&
                    port_of(here) == port &&
                    ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0;
  return ours ? port_of(peer) : -1;
}
double seconds_since(Clock::time_point when) {
  return std::chrono::duration<double>(Clock::now() - when).count();
}

// Bytes received so far; 0 where the system does not say.
std::uint64_t received(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  const bool said = ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
                    size >= offsetof(tcp_info, tcpi_bytes_received) + sizeof(std::uint64_t);
  return said ? info.tcpi_bytes_received : 0;
}

}  // namespace

class ConnectionWatch::Impl {
 public:
  Impl(int port, ConnectionLimits limits)
      : port_(port), limits_(limits), thread_([this] { watch(); }) {}
  ~Impl() {
    stopping_ = true;
    thread_.join();
  }

  double age(int peer_port) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [inode, one] : since_)
      if (one.peer_port == peer_port) return seconds_since(one.since);
    return 0.0;
  }

 private:
  struct Connection {
    int peer_port = -1;
    Clock::time_point since{};
  };

  void watch() {
    while (!stopping_) {
      look();
      std::this_thread::sleep_for(kBetweenLooks);
    }
  }

  void look() {
    std::map<ino_t, Connection> seen;  // by the socket's inode: numbers of files are reused
    DIR* open = ::opendir("/proc/self/fd");
    if (open == nullptr) return;
    while (const dirent* entry = ::readdir(open)) {
      const int fd = std::atoi(entry->d_name);
      struct stat status {};
      if (fd <= 2 || ::fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode)) continue;
      const int peer = accepted(fd, port_);
      if (peer < 0) continue;
      const auto before = since_.find(status.st_ino);
      const Clock::time_point since = before == since_.end() ? Clock::now() : before->second.since;
      seen[status.st_ino] = {peer, since};
      if (seconds_since(since) > limits_.seconds || received(fd) > limits_.bytes)
        ::shutdown(fd, SHUT_RD);
    }
    ::closedir(open);
    const std::lock_guard lock(mutex_);
    since_ = std::move(seen);
  }

  int port_;
  ConnectionLimits limits_;
  mutable std::mutex mutex_;
  std::map<ino_t, Connection> since_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

ConnectionWatch::ConnectionWatch(int port, ConnectionLimits limits)
    : impl_(std::make_unique<Impl>(port, limits)) {}
ConnectionWatch::~ConnectionWatch() = default;
double ConnectionWatch::age(int peer_port) const { return impl_->age(peer_port); }

}}  // namespace plumb::v0_1
