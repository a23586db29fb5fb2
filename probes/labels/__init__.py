"""Label sets, one file each: texts whose labels are known, and the rows to read them at."""

from probes.labels.base import LabelRequest, LabelSet, label_set, label_sets

__all__ = ["LabelRequest", "LabelSet", "label_set", "label_sets"]
