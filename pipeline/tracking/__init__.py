"""MLflow: a view of the result files."""
