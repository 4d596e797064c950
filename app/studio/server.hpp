// The page's HTTP: its files, which are part of the program, and actions by POST. It knows nothing
// of what the actions do. HTTP/1.1 by cpp-httplib, of which server.cpp alone knows.
//
// Who may do what: the Host header names this machine, and every action comes from this page
// (Origin), in a session of this server (a SameSite cookie and a token in a header that no form can
// set). Beyond the loopback interface an access token is needed besides, which the address carries
// once and a cookie then keeps. The page may run no script and load nothing but its own files
// (Content-Security-Policy). No path that a client names reaches the file system. Sizes, numbers of
// connections and how long they last are bounded. What this is not: encrypted; over a network that
// others read, use ssh -L.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

/// A file of the page, as it is served.
struct StudioFile {
  std::string_view path, type, content;
};

/// The page's files: index.html and what it names, put into the program when it is built.
std::span<const StudioFile> studio_files();

struct StudioReply {
  int status = 200;
  std::string json;
};

/// What an action does with its body; called by several threads at once.
using StudioHandler =
    std::function<StudioReply(const std::string& action, const std::string& body)>;

/// One of a stream of events: JSON on one line, and the id by which a page that was cut off says
/// what it has. Without data there is nothing new.
struct StudioEvent {
  std::string id, data;
};
using StudioStream = std::function<StudioEvent(const std::string& last_id)>;

struct StudioAddress {
  std::string host = "127.0.0.1";
  int port = 0;       ///< 0: any that is free
  std::string token;  ///< needed beyond the loopback interface: letters, digits, - . _ ~; 8 to 128
};

/// Serves while it lives.
class StudioServer {
 public:
  /// With a stream, /api/watch sends its events as they come (text/event-stream).
  /// DataError for a host beyond the loopback interface without a token, or a token that is no such
  /// word; IoError if the address cannot be had.
  StudioServer(const StudioAddress& address, StudioHandler handler, StudioStream stream = {});
  ~StudioServer();
  StudioServer(const StudioServer&) = delete;
  StudioServer& operator=(const StudioServer&) = delete;

  int port() const;
  /// What to open: "http://127.0.0.1:7325/", with the token where there is one.
  std::string url() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}}  // namespace plumb::v0_1
