"""What this process may spend of budgets without asking the database, and when it asks."""
