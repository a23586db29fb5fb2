"""Arrays and tables to plotly figures and self-contained pages. Plotly is imported on use; no model is touched."""
