"""What training costs, before it and after: previews, plans for a time budget, campaigns and their records."""
