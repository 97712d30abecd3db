#include "worker/trainer/layers/recompute.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <utility>

#include "worker/trainer/layers/row_random.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// While it lives, this thread draws as it did when `state` was taken; afterwards as if nothing had been drawn.
class Replay {
 public:
  explicit Replay(const RowRandom& state) : before_(CurrentRowRandom()) { SetRowRandom(state); }
  ~Replay() { SetRowRandom(before_); }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

 private:
  RowRandom before_;
};

// How a function travels in an autograd node.
struct Work : torch::CustomClassHolder {
  explicit Work(Recomputed function) : f(std::move(function)), random(CurrentRowRandom()) {}
  Recomputed f;
  RowRandom random;  // as it was before f ran
};

// The inputs cut off from their graph, but asking for gradients where they did.
variable_list CutOff(const variable_list& inputs) {
  variable_list out;
  for (const at::Tensor& input : inputs) out.push_back(input.detach().requires_grad_(input.requires_grad()));
  return out;
}

struct RecomputeFunction : torch::autograd::Function<RecomputeFunction> {
  // `tensors` are the inputs, then the parameters. Gradient mode is on for f, though its graph is dropped at once: some
  // operators sum in another order without it.
  static variable_list forward(AutogradContext* context, at::TensorList tensors, int64_t inputs,
                               const c10::intrusive_ptr<Work>& work) {
    context->set_materialize_grads(false);
    const variable_list given(tensors.begin(), tensors.begin() + inputs);
    context->save_for_backward(tensors.vec());
    context->saved_data["inputs"] = inputs;
    context->saved_data["work"] = c10::IValue::make_capsule(work);
    at::AutoGradMode with_gradients(true);
    variable_list outputs = work->f(CutOff(given));
    for (at::Tensor& output : outputs) output = output.detach();
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list tensors = context->get_saved_variables();
    const int64_t inputs = context->saved_data["inputs"].toInt();
    const auto work = c10::static_intrusive_pointer_cast<Work>(context->saved_data["work"].toCapsule());
    variable_list sources = CutOff({tensors.begin(), tensors.begin() + inputs});
    variable_list outputs;
    at::AutoGradMode with_gradients(true);
    {
      const Replay replay(work->random);
      outputs = work->f(sources);
    }
    sources.insert(sources.end(), tensors.begin() + inputs, tensors.end());
    return GradientsOf(outputs, gradients, sources);
  }

  // One gradient per source (undefined where none is asked for or comes), and one for each other argument.
  static variable_list GradientsOf(const variable_list& outputs, const variable_list& gradients,
                                   const variable_list& sources) {
    variable_list reached, weights, asking;
    for (size_t i = 0; i < outputs.size(); ++i)
      if (gradients[i].defined() && outputs[i].requires_grad()) {
        reached.push_back(outputs[i]);
        weights.push_back(gradients[i]);
      }
    for (const at::Tensor& source : sources)
      if (source.requires_grad()) asking.push_back(source);
    variable_list found = torch::autograd::grad(reached, asking, weights, /*retain_graph=*/std::nullopt,
                                                /*create_graph=*/false, /*allow_unused=*/true);
    variable_list out;
    size_t next = 0;
    for (const at::Tensor& source : sources) out.push_back(source.requires_grad() ? found[next++] : at::Tensor());
    out.insert(out.end(), 2, at::Tensor());
    return out;
  }
};

}  // namespace

std::vector<at::Tensor> Recompute(Recomputed f, const std::vector<at::Tensor>& inputs,
                                  const std::vector<at::Tensor>& parameters) {
  if (!at::GradMode::is_enabled()) return f(inputs);
  std::vector<at::Tensor> tensors = inputs;
  tensors.insert(tensors.end(), parameters.begin(), parameters.end());
  // Of a std::vector LibTorch would see no tensors, and build no graph.
  return RecomputeFunction::apply(at::TensorList(tensors), static_cast<int64_t>(inputs.size()),
                                  c10::make_intrusive<Work>(std::move(f)));
}

}  // namespace allometry::trainer
