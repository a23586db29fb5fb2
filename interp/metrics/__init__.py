"""What runs are judged by: named metrics of logits, functions, and metrics of residuals."""

from interp.metrics.bound import BoundMetric, MetricRow
from interp.metrics.named import METRICS, bind_metric, next_token_loss_metric
from interp.metrics.residuals import ResidualMetric, embedding_similarity, residual_metric

__all__ = [
    "METRICS",
    "BoundMetric",
    "MetricRow",
    "ResidualMetric",
    "bind_metric",
    "embedding_similarity",
    "next_token_loss_metric",
    "residual_metric",
]
