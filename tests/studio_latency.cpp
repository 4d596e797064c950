// How long an annotator waits for the next question while PPO trains in the same process, on every
// processor: 500 answers through HTTP, each saved and synced before the reply. Prints the times.
//
// usage: studio_latency FOLDER [MOST]     exit status 1 if 95 % take longer than MOST milliseconds
#include "../app/studio.hpp"
#include "tiny.hpp"

#include <plumb/io/json.hpp>

#include <httplib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

using namespace plumb;

namespace {

constexpr int kItems = 500;

// Trains a model of the demo's size until it is told to stop; the number of iterations.
int train(const std::atomic<bool>& stop) {
  TransformerConfig config{.family = Family::Llama,
                           .vocab = 512,
                           .context = 256,
                           .channels = 64,
                           .layers = 5,
                           .heads = 8,
                           .kv_heads = 4,
                           .hidden = 172};
  Model<Cpu> policy(config, 1, ScalarHead::Value);
  const Model<Cpu> reference = policy.clone(ScalarHead::None);
  const auto score = [](const std::vector<Episode>& episodes) {
    std::vector<float> out;
    for (const Episode& e : episodes) out.push_back(static_cast<float>(e.response[0] % 2));
    return out;
  };
  PpoConfig ppo;
  ppo.iterations = 1 << 20;
  ppo.sampling.max_new_tokens = 128;
  ppo.sampling.stops = {};
  PpoTrainer<Cpu> trainer(policy, reference, score, ppo);
  std::vector<Tokens> prompts;
  for (std::uint64_t i = 0; i < 64; ++i) prompts.push_back(test::random_tokens(8, 512, i));
  int done = 0;
  for (; !stop; ++done) trainer.step(prompts);
  return done;
}

std::vector<Candidates> questions() {
  std::vector<Candidates> out;
  for (int i = 0; i < kItems; ++i) {
    Candidates one;
    one.id = str("q", i);
    one.prompt = str("Prompt ", i);
    for (int k = 0; k < 4; ++k) one.responses.push_back(str("Response ", k, " to ", i));
    one.finished.assign(4, true);
    out.push_back(std::move(one));
  }
  return out;
}

class Page {
 public:
  explicit Page(int port) : client_("127.0.0.1", port) {
    client_.set_keep_alive(true);
    client_.set_tcp_nodelay(true);
    headers_ = {{"Origin", str("http://127.0.0.1:", port)}};
    const auto reply = client_.Post("/api/session", headers_, "{}", "application/json");
    check<DataError>(reply && reply->status == 200, "no session");
    const std::string cookie = reply->get_header_value("Set-Cookie");
    headers_.emplace("Cookie", cookie.substr(0, cookie.find(';')));
    headers_.emplace("X-Plumb-Token", parse_json(reply->body)["token"].get<std::string>());
  }
  Json act(const std::string& action, const Json& body) {
    const auto reply = client_.Post("/api/" + action, headers_, body.dump(), "application/json");
    check<DataError>(reply && reply->status == 200, "refused, or no reply");
    return parse_json(reply->body);
  }

 private:
  httplib::Client client_;
  httplib::Headers headers_;
};

}  // namespace

int main(int argc, char** argv) try {
  check<DataError>(argc > 1, "usage: studio_latency FOLDER [MOST]");
  const double most = argc > 2 ? std::atof(argv[2]) : 0.0;
  const std::string file = str(argv[1], "/studio_latency.jsonl");
  ::unlink(file.c_str());
  DeskStudio studio(std::make_shared<RankingDesk>(questions(), file, RankingPlan{}), "");
  const StudioServer server({}, [&](const std::string& action, const std::string& body) {
    return studio.handle(action, body);
  });

  std::atomic<bool> stop{false};
  std::atomic<int> iterations{0};
  std::thread trains([&] { iterations = train(stop); });
  Page page(server.port());
  Json at = page.act("sit", {{"name", "ana"}});
  std::vector<double> times;
  while (!at["question"].is_null()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));  // a fast person
    const auto begin = std::chrono::steady_clock::now();
    at = page.act("answer",
                  {{"name", "ana"}, {"key", at["question"]["key"]}, {"rank", {0, 1, 2, 3}}});
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    times.push_back(took.count());
  }
  stop = true;
  trains.join();
  std::sort(times.begin(), times.end());
  check<DataError>(times.size() == kItems && studio.rankings() == kItems, "answers are missing");
  const double tail = times[kItems * 95 / 100];
  std::printf(
      "%d answers while PPO trained (%d iterations): median %.1f ms, 95 %% %.1f ms, "
      "slowest %.1f ms\n",
      kItems, iterations.load(), times[kItems / 2], tail, times.back());
  return most > 0.0 && tail > most ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
