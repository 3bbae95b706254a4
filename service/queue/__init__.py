"""The Celery application, its filesystem transport, and the sweep that repairs both."""
