"""The asynchronous client, from which tools/sync_client.py makes the synchronous one."""
