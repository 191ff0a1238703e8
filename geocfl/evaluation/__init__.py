"""How accurate a model is: metrics, calibration, significance, figures and reports."""
