"""The five dashboards, one module each, on the pieces that they share. Imported by build.py alone: needs the Grafana
Foundation SDK, which nothing else at run time does."""
