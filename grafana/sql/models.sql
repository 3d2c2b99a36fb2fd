SELECT DISTINCT model FROM usage_months ORDER BY model
