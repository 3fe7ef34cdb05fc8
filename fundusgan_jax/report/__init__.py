"""Tables, pictures and the HTML page of a run."""
