"""Tables, figures and the report, made from the result files."""
