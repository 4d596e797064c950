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

#include <plumb/core/random.hpp>
#include <plumb/optim/adamw.hpp>

#include <algorithm>
#include <functional>
#include <span>
#include <string>
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

/// One minibatch: `gradients()` adds the gradients of all models. Returns the first model's
/// gradient norm, before clipping. What is thrown names the minibatch by `name()`, a NumericError
/// stays one.
template <class D, class Gradients, class Name>
float update_step(std::span<const Trained<D>> models, Gradients gradients, Name name,
                  const BeforeStep& before_step = {}) {
  const auto clear = [&] {
    for (const Trained<D>& model : models) model.parameters->flat().zero_grad();
  };
  clear();
  try {
    gradients();
    if (before_step) before_step();
    // All models step, or none: the first one's norm is looked at by its step, before anything
    // changes.
    for (const Trained<D>& model : models.subspan(1)) model.optimizer->gradient_norm();
    const float norm = models[0].optimizer->step(models[0].lr);
    for (const Trained<D>& model : models.subspan(1)) model.optimizer->step(model.lr);
    for (const Trained<D>& model : models) model.parameters->require_finite("after the step");
    return norm;
  } catch (const NumericError& error) {
    clear();
    throw NumericError(str(name(), ": ", error.what()));
  } catch (...) {
    clear();
    throw;
  }
}

}}  // namespace plumb::v0_1
