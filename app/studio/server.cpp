#include "server.hpp"

#include "connections.hpp"

#include <plumb/core/check.hpp>
#include <plumb/io/hash.hpp>

#include <httplib.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr std::size_t kLargestBody = 64 * 1024;  // bytes; a comment has 4000
constexpr std::size_t kWorkers = 32;             // connections that are served at once
constexpr std::size_t kWaiting = 64;             // and that wait; more stay with the system
constexpr std::size_t kSessions = 1000;
constexpr int kStreams = 16;           // of the workers, so that some are left
constexpr double kStreamLasts = 14.0;  // seconds of the 20 that a connection may

using Clock = std::chrono::steady_clock;

// httplib's threads, of which there are so many, and no more connections than these can follow.
class BoundedQueue : public httplib::TaskQueue {
 public:
  explicit BoundedQueue(const std::atomic<bool>& stopping) : stopping_(stopping) {
    for (std::size_t i = 0; i < kWorkers; ++i) threads_.emplace_back([this] { work(); });
  }
  // Later versions of httplib want to know whether it was taken.
  using Taken = decltype(std::declval<httplib::TaskQueue&>().enqueue({}));
  Taken enqueue(std::function<void()> task) override {
    std::unique_lock lock(mutex_);
    while (tasks_.size() >= kWaiting && !stopping_)
      changed_.wait_for(lock, std::chrono::milliseconds(100));
    tasks_.push_back(std::move(task));
    changed_.notify_all();
    return static_cast<Taken>(true);
  }
  void shutdown() override {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return ended_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      changed_.notify_all();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  const std::atomic<bool>& stopping_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  bool ended_ = false;
};

// 128 random bits that nobody guesses.
std::string secret() {
  std::uint64_t bits[2];
  if (::getrandom(bits, sizeof bits, 0) != sizeof bits)
    fail<IoError>("[studio] the system gave no random bits");
  return hex64(bits[0]) + hex64(bits[1]);
}

// In a time that does not tell where they differ.
bool same_secret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  return difference == 0;
}

std::string cookie_of(const httplib::Request& request, const std::string& name) {
  const std::string all = "; " + request.get_header_value("Cookie");
  const std::size_t at = all.find("; " + name + "=");
  if (at == all.npos) return {};
  const std::size_t begin = at + name.size() + 3;
  return all.substr(begin, all.find(';', begin) - begin);
}

bool is_loopback(const std::string& host) {
  return host == "127.0.0.1" || host == "localhost" || host == "::1" || host == "[::1]";
}

std::string machine_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

bool is_ipv4(const std::string& host) {
  return !host.empty() && host.find_first_not_of("0123456789.") == host.npos;
}

void check_address(const StudioAddress& address) {
  const bool word = std::all_of(address.token.begin(), address.token.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_' || c == '~';
  });
  if (!address.token.empty() && (!word || address.token.size() < 8 || address.token.size() > 128))
    fail<DataError>("[studio] a token has 8 to 128 letters, digits, and - . _ ~");
  if (!is_loopback(address.host) && address.token.empty())
    fail<DataError>(str("[studio] ", address.host,
                        " is open to others, who could answer in anyone's name. HINT: --token WORD "
                        "with a word of your own, or no --host and ssh -L from the other machine"));
}

httplib::Headers headers_of_all() {
  return {{"Content-Security-Policy",
           "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
           "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
          {"X-Content-Type-Options", "nosniff"},
          {"X-Frame-Options", "DENY"},
          {"Referrer-Policy", "no-referrer"},
          {"Cross-Origin-Opener-Policy", "same-origin"},
          {"Cross-Origin-Resource-Policy", "same-origin"}};
}

void reply(httplib::Response& response, int status, const std::string& json) {
  response.status = status;
  response.set_header("Cache-Control", "no-store");
  response.set_content(json, "application/json");
}

// A refusal that the page knows by `kind`. Neither text has a character that JSON escapes.
void refuse(httplib::Response& response, int status, const char* kind, const char* what) {
  reply(response, status, str("{\"kind\":\"", kind, "\",\"error\":\"", what, "\"}"));
}

}  // namespace

class StudioServer::Impl {
 public:
  Impl(StudioAddress address, StudioHandler handler, StudioStream stream)
      : address_(std::move(address)), handler_(std::move(handler)), stream_(std::move(stream)) {
    check_address(address_);
    server_.new_task_queue = [this] { return new BoundedQueue(stopping_); };
    server_.set_socket_options([](socket_t socket) {  // not SO_REUSEPORT: one server a port
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    server_.set_tcp_nodelay(true);
    server_.set_read_timeout(5);
    server_.set_write_timeout(5);
    server_.set_keep_alive_timeout(5);
    server_.set_payload_max_length(kLargestBody);
    server_.set_default_headers(headers_of_all());
    serve_files();
    serve_actions();
    if (stream_) serve_stream();
    bind();
    watch_ = std::make_unique<ConnectionWatch>(port_, ConnectionLimits{});
    thread_ = std::thread([this] {
      server_.listen_after_bind();
      ended_ = true;
    });
  }
  ~Impl() {
    stopping_ = true;
    while (!server_.is_running() && !ended_)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    server_.stop();
    thread_.join();
  }

  int port() const { return port_; }
  std::string url() const {
    return str("http://", address_.host == "0.0.0.0" ? machine_name() : address_.host, ":", port_,
               "/", address_.token.empty() ? "" : "?token=" + address_.token);
  }

 private:
  void bind() {
    if (address_.port != 0) {
      if (server_.bind_to_port(address_.host, address_.port)) port_ = address_.port;
    } else {
      port_ = server_.bind_to_any_port(address_.host);
    }
    if (port_ <= 0)
      fail<IoError>(str("[studio] nothing can be served at ", address_.host, ":", address_.port,
                        ": another program may have that port. HINT: --port N, or --port 0 for "
                        "any that is free"));
    session_cookie_ = str("plumb_session_", port_);
    access_cookie_ = str("plumb_access_", port_);
  }

  // A page of another name that leads here (DNS rebinding) is none of ours.
  bool right_host(const httplib::Request& request) const {
    std::string host = request.get_header_value("Host");
    if (const std::size_t colon = host.rfind(':');
        colon != host.npos && host.find(']', colon) == host.npos)
      host.resize(colon);
    if (is_loopback(host)) return true;
    return !address_.token.empty() &&
           (host == address_.host || host == machine_name() || is_ipv4(host));
  }

  bool may_enter(const httplib::Request& request) const {
    return address_.token.empty() ||
           same_secret(cookie_of(request, access_cookie_), address_.token);
  }

  void serve_files() {
    for (const StudioFile& file : studio_files()) {
      const bool page = file.path == "index.html";
      const std::string etag = "\"" + hex64(hash64(file.content)) + "\"";
      server_.Get(
          page ? "/" : str("/", file.path),
          [this, file, page, etag](const httplib::Request& request, httplib::Response& response) {
            if (!right_host(request)) return refuse(response, 403, "host", "this is not that host");
            if (page && same_secret(request.get_param_value("token"), address_.token))
              set_cookie(response, access_cookie_, address_.token);
            response.set_header("ETag", etag);
            response.set_header("Cache-Control", "no-cache");
            if (request.get_header_value("If-None-Match") == etag) {
              response.status = 304;
              return;
            }
            response.set_content(std::string(file.content), std::string(file.type));
          });
    }
    server_.set_error_handler([](const httplib::Request&, httplib::Response& response) {
      if (!response.body.empty()) return;
      const int status = response.status;
      if (status == 413) return refuse(response, status, "size", "that is too large");
      if (status == 404) return refuse(response, status, "path", "there is no such page");
      refuse(response, status, "request", "that is no request that is known here");
    });
    server_.set_exception_handler(
        [](const httplib::Request&, httplib::Response& response, const auto&...) {
          refuse(response, 500, "server", "the program could not do that");
        });
  }

  void serve_actions() {
    server_.Post(
        "/api/([a-z]+)", [this](const httplib::Request& request, httplib::Response& response) {
          const std::string origin = request.get_header_value("Origin");
          if (!right_host(request)) return refuse(response, 403, "host", "this is not that host");
          if (origin != "http://" + request.get_header_value("Host"))
            return refuse(response, 403, "origin", "only this server's own page may do that");
          if (!request.get_header_value("Content-Type").starts_with("application/json"))
            return refuse(response, 415, "type", "a body is application/json");
          if (!may_enter(request))
            return refuse(response, 401, "access", "open the address with its token first");
          const std::string action = request.matches[1];
          if (action == "session") return begin_session(request, response);
          if (!in_session(request))
            return refuse(response, 403, "session", "this session has ended; begin another");
          const StudioReply done = handler_(action, request.body);
          reply(response, done.status, done.json);
        });
  }

  // Events until the page goes, or this server. A stream ends in good order before its connection
  // is too old, which may have served other requests; the page then opens another, and says which
  // event it had last.
  void serve_stream() {
    server_.Get("/api/watch", [this](const httplib::Request& request, httplib::Response& response) {
      if (!right_host(request)) return refuse(response, 403, "host", "this is not that host");
      if (!may_enter(request) || !has_session(request))
        return refuse(response, 403, "session", "this session has ended; begin another");
      if (streams_.fetch_add(1) >= kStreams) {
        --streams_;
        return refuse(response, 503, "busy", "too many pages are watching");
      }
      response.set_header("Cache-Control", "no-store");
      response.set_header("Connection", "close");
      const auto last = std::make_shared<std::string>(request.get_header_value("Last-Event-ID"));
      const double left = kStreamLasts - watch_->age(request.remote_port);
      const auto until = Clock::now() + std::chrono::milliseconds(std::lround(1000.0 * left));
      response.set_chunked_content_provider(
          "text/event-stream",
          [this, last, until](std::size_t, httplib::DataSink& sink) {
            const StudioEvent event = stream_(*last);
            const std::string text =
                event.data.empty()
                    ? std::string(":\n\n")  // that it is still there
                    : str("retry: 500\nid: ", event.id, "\ndata: ", event.data, "\n\n");
            if (!sink.write(text.data(), text.size())) return false;
            *last = event.id;
            for (int i = 0; i < 10 && !stopping_; ++i)
              std::this_thread::sleep_for(std::chrono::milliseconds(50));
            if (stopping_ || Clock::now() > until) sink.done();
            return true;
          },
          [this](bool) { --streams_; });
    });
  }

  void set_cookie(httplib::Response& response, const std::string& name,
                  const std::string& value) const {
    if (!value.empty())
      response.set_header("Set-Cookie", name + "=" + value + "; Path=/; HttpOnly; SameSite=Strict");
  }

  void begin_session(const httplib::Request& request, httplib::Response& response) {
    const std::lock_guard lock(mutex_);
    const std::string id = cookie_of(request, session_cookie_);
    auto found = std::find_if(sessions_.begin(), sessions_.end(),
                              [&](const auto& session) { return same_secret(session.first, id); });
    if (found == sessions_.end()) {
      if (sessions_.size() == kSessions) sessions_.pop_front();
      sessions_.emplace_back(secret(), secret());
      found = std::prev(sessions_.end());
      set_cookie(response, session_cookie_, found->first);
    }
    reply(response, 200, "{\"token\":\"" + found->second + "\"}");
  }

  bool has_session(const httplib::Request& request) {
    const std::lock_guard lock(mutex_);
    const std::string id = cookie_of(request, session_cookie_);
    return std::any_of(sessions_.begin(), sessions_.end(),
                       [&](const auto& session) { return same_secret(session.first, id); });
  }

  bool in_session(const httplib::Request& request) {
    const std::lock_guard lock(mutex_);
    const std::string id = cookie_of(request, session_cookie_);
    const std::string token = request.get_header_value("X-Plumb-Token");
    return std::any_of(sessions_.begin(), sessions_.end(), [&](const auto& session) {
      return same_secret(session.first, id) && same_secret(session.second, token);
    });
  }

  StudioAddress address_;
  StudioHandler handler_;
  StudioStream stream_;
  std::atomic<int> streams_{0};
  int port_ = 0;
  std::string session_cookie_, access_cookie_;
  std::atomic<bool> stopping_{false}, ended_{false};
  std::mutex mutex_;
  std::deque<std::pair<std::string, std::string>> sessions_;  // cookie and token
  httplib::Server server_;
  std::unique_ptr<ConnectionWatch> watch_;
  std::thread thread_;
};

StudioServer::StudioServer(const StudioAddress& address, StudioHandler handler, StudioStream stream)
    : impl_(std::make_unique<Impl>(address, std::move(handler), std::move(stream))) {}
StudioServer::~StudioServer() = default;
int StudioServer::port() const { return impl_->port(); }
std::string StudioServer::url() const { return impl_->url(); }

}}  // namespace plumb::v0_1
