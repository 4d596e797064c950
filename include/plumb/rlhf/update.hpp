// The one loop in which weights change: supervised fine-tuning, the reward model and PPO differ in
// their items and their losses, and in nothing here.
//
//   an epoch      the items in a shuffled order, in minibatches
//   a minibatch   gradients cleared; micro-batches, each adding its share of the minibatch's
//   gradient;
//                 the hook; one step of every model, or of none; weights checked finite
//
// Shares are of the whole minibatch, so micro-batches change memory and never the loss. Whatever is
// thrown on the way leaves gradients cleared behind it, and weights as they were unless it was the
// step itself that made them non-finite. Not here: which losses, and when to save.
#pragma once

#include <plumb/core/host_reads.hpp>
#include <plumb/core/random.hpp>
#include <plumb/optim/adamw.hpp>

#include <algorithm>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Called after each update: its number, how many there are, its loss.
using UpdateCallback = std::function<void(Index update, Index total, float loss)>;

/// Called between a minibatch's last gradient and its step, which reads what it leaves in the
/// gradients: for freezing, averaging or summing over processes. Optional.
using BeforeStep = std::function<void()>;

/// One of the models that a loop trains, and the learning rate of its next step.
template <class D>
struct Trained {
  const Parameters<D>* parameters;
  AdamW<D>* optimizer;
  float lr;
};

/// How items become minibatches.
struct Minibatches {
  Index count;                            ///< items
  Index epochs;                           ///< passes over them
  Index parts;                            ///< minibatches an epoch
  Index batch = 0;                        ///< items in each but the last; 0: all of equal size
  std::function<Rng(Index epoch)> order;  ///< the stream that shuffles an epoch

  /// Minibatches of `batch` items.
  static Minibatches of(Index count, Index batch, Index epochs, std::uint64_t seed,
                        std::uint32_t purpose) {
    return {count, epochs, (count + batch - 1) / batch, batch, [=](Index epoch) {
              return Rng(seed, Stage::Shuffle, static_cast<std::uint32_t>(epoch), purpose);
            }};
  }

  /// Calls body(epoch, part, members), members being places among the items, minibatch after
  /// minibatch; after each epoch go_on(epoch) says whether there is a next.
  template <class Body, class GoOn>
  void run(Body body, GoOn go_on) const {
    std::vector<std::size_t> members;
    for (Index epoch = 0; epoch < epochs; ++epoch) {
      const auto shuffled = permutation(count, order(epoch));
      for (Index part = 0; part < parts; ++part) {
        const Index first = batch > 0 ? part * batch : part * count / parts;
        const Index last = batch > 0 ? std::min(count, first + batch) : (part + 1) * count / parts;
        members.clear();
        for (Index i = first; i < last; ++i)
          members.push_back(static_cast<std::size_t>(shuffled[static_cast<std::size_t>(i)]));
        body(epoch, part, members);
      }
      if (!go_on(epoch)) return;
    }
  }
  template <class Body>
  void run(Body body) const {
    run(body, [](Index) { return true; });
  }
};

/// Minibatches whose host waits once a step: for the gradients' norms, which come with whatever
/// else was asked for, and with the check of the weights of the step before.
template <class D>
class Updates {
 public:
  /// What comes before a step: `gradients()` may ask for its losses here.
  HostReads<D>& reads() { return reads_; }

  /// One minibatch: `gradients()` adds the gradients of all models; `look()` is called before they
  /// step, when all that was asked for is there. Returns the first model's gradient norm, before
  /// clipping. What is thrown names the minibatch by `name()`, a NumericError stays one.
  template <class Gradients, class Look, class Name>
  float step(std::span<const Trained<D>> models, Gradients gradients, Look look, Name name,
             const BeforeStep& before_step = {}) {
    const auto clear = [&] {
      for (const Trained<D>& model : models) model.parameters->flat().zero_grad();
    };
    std::vector<double> squares(models.size());
    float first = 0;
    clear();
    try {
      named(name, [&] {
        gradients();
        if (before_step) before_step();
        for (std::size_t i = 0; i < models.size(); ++i) {
          const Tensor<D>& flat = models[i].parameters->flat();
          sum_of_squares(D{}, reads_.room(&squares[i]), flat.grad(), flat.size());
        }
        reads_.fetch();
      });
      check_steps();
      named(name, [&] {
        look();
        // All models step, or none.
        std::vector<double> norms;
        for (std::size_t i = 0; i < models.size(); ++i)
          norms.push_back(models[i].optimizer->gradient_norm(squares[i]));
        for (std::size_t i = 0; i < models.size(); ++i) {
          const float norm = models[i].optimizer->step(models[i].lr, norms[i]);
          if (i == 0) first = norm;
        }
      });
    } catch (...) {
      reads_.forget();
      clear();
      throw;
    }
    for (const Trained<D>& model : models) {
      stepped_.push_back({model.parameters, 0, name()});
      const Tensor<D>& flat = model.parameters->flat();
      sum_of_squares(D{}, reads_.room(&stepped_.back().squares), flat.data(), flat.size());
    }
    return first;
  }

  /// Waits for the last step. NumericError naming its minibatch if it left weights not finite.
  void finish() {
    reads_.fetch();
    check_steps();
  }

 private:
  // A step whose weights were not looked at yet.
  struct Stepped {
    const Parameters<D>* parameters;
    double squares;
    std::string name;
  };
  void check_steps() {
    for (const Stepped& one : std::exchange(stepped_, {}))
      named([&] { return one.name; },
            [&] { one.parameters->require_finite("after the step", one.squares); });
  }
  // A NumericError of `work` names the minibatch.
  template <class Name, class Work>
  static void named(Name name, Work work) {
    try {
      work();
    } catch (const NumericError& error) {
      throw NumericError(str(name(), ": ", error.what()));
    }
  }

  HostReads<D> reads_;
  std::deque<Stepped> stepped_;
};

/// One minibatch by itself.
template <class D, class Gradients, class Name>
float update_step(std::span<const Trained<D>> models, Gradients gradients, Name name,
                  const BeforeStep& before_step = {}) {
  Updates<D> updates;
  const float norm = updates.step(
      models, gradients, [] {}, name, before_step);
  updates.finish();
  return norm;
}

}}  // namespace plumb::v0_1
