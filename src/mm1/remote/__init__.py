"""What lies in stores and on the web (`s3://`, `gs://`, `hf://`, `https://`), by address: found, read, kept on disk."""
