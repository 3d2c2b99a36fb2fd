-- The database role that Grafana reads with: sums, names and budgets, and neither single events nor secrets.
-- Run it as whoever owns meter's tables and may make roles; running it again changes nothing:
--   psql "$METER_DATABASE_URL" -f grafana/role.sql
--   psql "$METER_DATABASE_URL" -c '\password meter_grafana'
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'meter_grafana') THEN
        CREATE ROLE meter_grafana LOGIN;
    END IF;
END $$;
ALTER ROLE meter_grafana SET default_transaction_read_only = on;
ALTER ROLE meter_grafana SET statement_timeout = '30s';
GRANT USAGE ON SCHEMA public TO meter_grafana;
GRANT SELECT ON usage_15m, usage_days, usage_months, refusals_hourly, budgets, budget_windows TO meter_grafana;
GRANT SELECT (id, name) ON teams TO meter_grafana;
GRANT SELECT (id, name, team_id) ON api_keys TO meter_grafana;
