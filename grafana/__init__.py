"""What Grafana and Prometheus need for meter; `make dashboards` writes `dashboards/` from what is here."""
