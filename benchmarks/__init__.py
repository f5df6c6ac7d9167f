"""Every performance claim of the project, as a script that prints both sides in one run."""
