"""Theory and measurements of one subject each: closed forms, monitors, learning-rate finders, profiles."""
