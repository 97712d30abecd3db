#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

namespace allometry::analysis {

// Which of some cells cost no more than which, by one cost or several, so that each of many sets of qualities over the
// same costs takes one sweep. Thread-safe once made.
//
// Cells of equal costs share a node. A node's links are the nodes that cost no more and lie directly below it (the
// edges of the Hasse diagram), so the best quality among all that cost no more is a maximum over a few links. With one
// cost the nodes are a chain.
class CostOrder {
 public:
  // `costs[i]` are those of cell i, all of one length, finite. Time and memory grow with the square of the number of
  // cells where there are several costs: some seconds for 25,000.
  explicit CostOrder(std::span<const std::vector<double>> costs);

  // Calls visit(cell) for the cells on the frontier: no other cell costs no more and is no worse, with one of these
  // strict. Equals do not exclude each other. `scratch` is the caller's, to be used again.
  template <typename Visit>
  void ForEachOnFrontier(std::span<const double> qualities, std::vector<double>* scratch, const Visit& visit) const {
    scratch->resize(nodes_.size());
    double previous = 0;  // of a chain, each node's only link, which need not be read back
    for (size_t n = 0; n < nodes_.size(); ++n) {
      const double cheaper = chain_ && n > 0 ? previous : BestOfLinks(nodes_[n], *scratch);
      double here = -std::numeric_limits<double>::infinity();
      for (size_t i = nodes_[n].first_cell; i < nodes_[n].end_cell; ++i) here = std::max(here, qualities[cells_[i]]);
      (*scratch)[n] = previous = std::max(cheaper, here);
      if (here <= cheaper) continue;
      for (size_t i = nodes_[n].first_cell; i < nodes_[n].end_cell; ++i)
        if (qualities[cells_[i]] == here) visit(cells_[i]);
    }
  }

  // For each cell the highest quality among the cells that cost no more, itself among them.
  std::vector<double> BestThatCostsNoMore(std::span<const double> qualities) const;

  // The cells, by rising first cost.
  const std::vector<size_t>& cells() const { return cells_; }

 private:
  struct Node {
    size_t first_cell = 0, end_cell = 0;  // in cells_
    size_t first_link = 0, end_link = 0;  // in links_
  };

  double BestOfLinks(const Node& node, const std::vector<double>& best) const {
    double cheaper = -std::numeric_limits<double>::infinity();
    for (size_t i = node.first_link; i < node.end_link; ++i) cheaper = std::max(cheaper, best[links_[i]]);
    return cheaper;
  }
  void AddLinks(std::span<const double> costs, size_t node, size_t count);

  bool chain_ = false;  // one cost
  std::vector<size_t> cells_;
  std::vector<Node> nodes_;    // a node comes after all that cost no more
  std::vector<size_t> links_;  // nodes
};

}  // namespace allometry::analysis
