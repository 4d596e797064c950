// Tensors, the tape and one gradient, checked by hand.
//
// Shows: a tensor's shape and views; a forward pass recorded by a tape; backward; the same op
// called as a bare kernel; what an error says. Not: a model, an optimizer.
//
// Prints:
//   x is (2, 3); its second row is (1, 3) and begins with 4
//   f = 0.533751
//   df/dw0 = 4.50845 by the tape, 4.50844 by differences
//   df/dw1 = 6.35634 by the tape, 6.35633 by differences
//   df/dw2 = 8.20424 by the tape, 8.20419 by differences
//   x·w by the bare kernel: 0.15 0.30
//   a mistake: [linear] inner sizes differ: x is (2, 3), weight is (4, 2).
//     HINT: weight is (out, in), x is (rows, in)
#include <plumb/plumb.hpp>

#include <cmath>
#include <cstdio>

using namespace plumb;

// One neuron on three inputs: Σ tanh(x·w + b) over the rows of x (N, 3), w (1, 3), b (1) -> ().
static Tensor<Cpu> forward(const Tensor<Cpu>& x, const Tensor<Cpu>& w, const Tensor<Cpu>& b) {
  const auto y = plumb::tanh(linear(x, w, b)).reshape({x.dim(0)});
  const auto ones =
      Tensor<Cpu>::from(std::vector<float>(static_cast<std::size_t>(x.dim(0)), 1.0F), {x.dim(0)});
  return weighted_sum(y, ones);
}

int main() {
  // A tensor is a shape and contiguous memory. Copies and views share that memory.
  const auto x = Tensor<Cpu>::from({1, 2, 3, 4, 5, 6}, {2, 3});
  const auto second = x.rows(1, 2);
  std::printf("x is %s; its second row is %s and begins with %g\n", str(x.shape()).c_str(),
              str(second.shape()).c_str(), static_cast<double>(second.data()[0]));

  const auto w = Tensor<Cpu>::from({0.1F, -0.2F, 0.15F}, {1, 3});
  const auto b = Tensor<Cpu>::from({0.05F}, {1});

  // No tape in scope: the ops compute and record nothing.
  const float value = forward(x, w, b).item();

  // In the scope of a tape, ops that read a tensor with a gradient record how to go back.
  w.set_requires_grad(true);
  {
    Tape tape;
    tape.backward(forward(x, w, b));
  }
  std::printf("f = %.6f\n", static_cast<double>(value));

  // The gradient against the slope between two points near w.
  bool right = true;
  for (Index i = 0; i < w.size(); ++i) {
    const float step = 1e-3F, here = w.data()[i];
    w.data()[i] = here + step;
    const double above = forward(x, w, b).item();
    w.data()[i] = here - step;
    const double below = forward(x, w, b).item();
    w.data()[i] = here;
    const double slope = (above - below) / (2.0 * static_cast<double>(step));
    const double gradient = w.grad()[i];
    std::printf("df/dw%d = %.5f by the tape, %.5f by differences\n", static_cast<int>(i), gradient,
                slope);
    right = right && std::abs(gradient - slope) < 1e-3;
  }

  // An op is a check, an allocation and a kernel; the kernel is a function of pointers and sizes.
  float y[2];
  kernels::matmul(Cpu{}, y, x.data(), w.data(), 2, 1, 3, Form::NT);
  std::printf("x·w by the bare kernel: %.2f %.2f\n", static_cast<double>(y[0]),
              static_cast<double>(y[1]));

  try {
    linear(x, Tensor<Cpu>::zeros({4, 2}));
    right = false;
  } catch (const ShapeError& error) {
    const std::string what = error.what();  // it ends with the place of the call
    const std::size_t hint = what.find("HINT"), place = what.rfind(" (");
    std::printf("a mistake: %s\n  %s\n", what.substr(0, hint - 1).c_str(),
                what.substr(hint, place - hint).c_str());
  }
  return right ? 0 : 1;
}
