"""The results of the class focal loss paper for EuroSAT, shown for comparison.

Source: "Class Focal Loss Optimization with residual networks on EuroSAT": Table 3 (class focal loss) and Table 4
(cross-entropy). Half of each class was used for training and half for testing, at random: 13,500 test patches. The
order of all tuples is that of `geocfl.core.legend.EUROSAT`. The paper gives no F1 for the class focal loss.
"""

LABEL_COUNT = (1500, 1500, 1500, 1250, 1250, 1000, 1250, 1500, 1250, 1500)
"""Test patches of each class."""
FOCAL_CORRECT = (1400, 1498, 1393, 1200, 1185, 980, 1199, 1496, 1190, 1400)
"""Class focal loss, Table 3: test patches of each class that were classified correctly."""
FOCAL_ACCURACY = tuple(correct / count for correct, count in zip(FOCAL_CORRECT, LABEL_COUNT, strict=True))
"""Class focal loss: accuracy of each class, 0..1."""
FOCAL_TOTAL = sum(FOCAL_CORRECT) / sum(LABEL_COUNT)
"""Class focal loss: accuracy over all test patches, 0..1."""
ENTROPY_ACCURACY = (0.9000, 0.9180, 0.9550, 0.9750, 0.9888, 0.9540, 0.9528, 0.9986, 0.9576, 0.9280)
"""Cross-entropy, Table 4: accuracy of each class, 0..1."""
ENTROPY_F1 = (0.8840, 0.9130, 0.9540, 0.9659, 0.9780, 0.9630, 0.9329, 0.9800, 0.9476, 0.9180)
"""Cross-entropy, Table 4: F1 of each class, 0..1."""
ENTROPY_TOTAL = 0.9516
"""Cross-entropy: accuracy weighted by the label count, 0..1."""
