// A small transformer learns to write, byte by byte, from nothing.
//
// Shows: Model (a Llama of 2 layers), packed batches of stories of their own lengths, the training
// loop, and sampling with a key/value cache. Not: a useful model; it reads the beginnings of 1,500
// stories about three times, and spells like it.
//
// Prints:
//   117056 weights, 1500 stories
//   step   0  loss 5.568 nats per byte
//   step 100  loss 2.435 nats per byte
//   step 200  loss 2.056 nats per byte
//   step 300  loss 1.634 nats per byte
//   step 400  loss 1.538 nats per byte
//   step 500  loss 1.608 nats per byte
//   held-out: 1.498 nats per byte
//   Once upon a time, there was a little wirl named The liked a bo boun. The bule winted sar he fi…
#include <plumb/data/text.hpp>
#include <plumb/plumb.hpp>
#include <plumb/text/bytes.hpp>

#include <cstdio>

using namespace plumb;

// Stories as bytes, a 0 before and after each, cut to `longest`.
static std::vector<Tokens> read_stories(const char* file, std::size_t longest) {
  const ByteTokenizer bytes;
  std::vector<Tokens> stories;
  for (const std::string& story :
       split_stories(read_text(std::string(PLUMB_SOURCE_DIR "/examples/data/") + file))) {
    Tokens tokens = bytes.encode(story);
    tokens.insert(tokens.begin(), 0);
    tokens.push_back(0);
    if (tokens.size() > longest) tokens.resize(longest);
    stories.push_back(std::move(tokens));
  }
  return stories;
}

// Mean negative log-likelihood of every next byte of some stories: ().
static Tensor<Cpu> next_byte_loss(const Model<Cpu>& model, std::span<const Tokens> stories) {
  PackedBatch packed;  // one story behind the other: no padding
  Tokens targets;
  for (const Tokens& story : stories) {
    packed.add(std::span(story).first(story.size() - 1));
    targets.insert(targets.end(), story.begin() + 1, story.end());
  }
  const auto hidden = model.hidden(Batch<Cpu>::from(packed));  // (N, C)
  const auto n = static_cast<Index>(targets.size());
  return cross_entropy(hidden, model.head(), Tensor<Cpu, std::int32_t>::from(targets, {n}));
}

int main() {
  const Index context = 128;
  Model<Cpu> model({.family = Family::Llama,
                    .vocab = 256,
                    .context = context,
                    .channels = 64,
                    .layers = 2,
                    .heads = 4,
                    .kv_heads = 4,
                    .hidden = 176},
                   1);
  const auto train = read_stories("tinystories_train.txt", context);
  auto held_out = read_stories("tinystories_heldout.txt", context);
  held_out.resize(40);
  std::printf("%d weights, %d stories\n", static_cast<int>(model.parameters().count()),
              static_cast<int>(train.size()));

  const Index steps = 600, batch = 8;
  AdamW<Cpu> optimizer(model.parameters(), {.lr = 1e-2F, .weight_decay = 0.01F});
  for (Index step = 0; step < steps; ++step) {
    const auto first = static_cast<std::size_t>(step * batch % 1496);
    Tape tape;
    const auto loss =
        next_byte_loss(model, std::span(train).subspan(first, static_cast<std::size_t>(batch)));
    tape.backward(loss);
    optimizer.step(linear_schedule(optimizer.config().lr, step, steps));
    if (step % 100 == 0)
      std::printf("step %3d  loss %.3f nats per byte\n", static_cast<int>(step),
                  static_cast<double>(loss.item()));
  }
  const double nll = mean_nll(model, held_out);
  std::printf("held-out: %.3f nats per byte\n", nll);

  SampleOptions options;
  options.sampling.temperature = 0.5F;
  options.max_new_tokens = 120;
  options.stops = {0};
  options.seed = 7;
  const ByteTokenizer bytes;
  Tokens prompt = bytes.encode("Once upon a time, there was a ");
  prompt.insert(prompt.begin(), 0);
  for (const Response& response : sample(model, {prompt}, options)) {
    std::string text = bytes.decode(response.tokens);
    std::erase(text, '\0');
    std::printf("Once upon a time, there was a %s…\n", text.substr(0, 64).c_str());
  }
  return nll < 1.7 ? 0 : 1;
}
