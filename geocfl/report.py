"""A run's figures."""
def write_report(out, model, history, result):
    pass
