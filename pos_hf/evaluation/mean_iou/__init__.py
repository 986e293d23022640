"""The folder that `evaluate.load` reads; the metric is in mean_iou.py."""
