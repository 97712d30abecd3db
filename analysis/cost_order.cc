#include "analysis/cost_order.h"

#include <numeric>

namespace allometry::analysis {
namespace {

bool CostsNoMore(const double* a, const double* b, size_t count) {
  for (size_t k = 0; k < count; ++k)
    if (a[k] > b[k]) return false;
  return true;
}

}  // namespace

CostOrder::CostOrder(std::span<const std::vector<double>> costs) : cells_(costs.size()) {
  std::iota(cells_.begin(), cells_.end(), size_t{0});
  std::ranges::stable_sort(cells_, {}, [&](size_t i) -> const std::vector<double>& { return costs[i]; });
  const size_t count = costs.empty() ? 0 : costs.front().size();
  chain_ = count == 1;
  std::vector<double> of_nodes;  // side by side, since every node is held against every one before it
  for (size_t i = 0; i < cells_.size();) {
    Node& node = nodes_.emplace_back();
    node.first_cell = i;
    while (i < cells_.size() && costs[cells_[i]] == costs[cells_[node.first_cell]]) ++i;
    node.end_cell = i;
    of_nodes.insert(of_nodes.end(), costs[cells_[node.first_cell]].begin(), costs[cells_[node.first_cell]].end());
    AddLinks(of_nodes, nodes_.size() - 1, count);
  }
}

void CostOrder::AddLinks(std::span<const double> costs, size_t node, size_t count) {
  const auto cost_of = [&](size_t n) { return costs.data() + n * count; };
  nodes_[node].first_link = links_.size();
  // From the nearest down: what lies below a node that is linked already is reached through it.
  for (size_t n = node; n-- > 0;) {
    if (!CostsNoMore(cost_of(n), cost_of(node), count)) continue;
    const std::span<const size_t> linked = std::span(links_).subspan(nodes_[node].first_link);
    if (std::ranges::any_of(linked, [&](size_t above) { return CostsNoMore(cost_of(n), cost_of(above), count); }))
      continue;
    links_.push_back(n);
    if (count == 1) break;  // a chain
  }
  nodes_[node].end_link = links_.size();
}

std::vector<double> CostOrder::BestThatCostsNoMore(std::span<const double> qualities) const {
  std::vector<double> best(nodes_.size()), out(cells_.size());
  for (size_t n = 0; n < nodes_.size(); ++n) {
    best[n] = BestOfLinks(nodes_[n], best);
    for (size_t i = nodes_[n].first_cell; i < nodes_[n].end_cell; ++i)
      best[n] = std::max(best[n], qualities[cells_[i]]);
    for (size_t i = nodes_[n].first_cell; i < nodes_[n].end_cell; ++i) out[cells_[i]] = best[n];
  }
  return out;
}

}  // namespace allometry::analysis
