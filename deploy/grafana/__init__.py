"""Grafana's dashboards and alert rules, made by `python -m deploy.grafana` (`make grafana`)."""
