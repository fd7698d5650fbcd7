"""Kaggle's API: competitions are downloaded, submissions uploaded, and their scores recorded."""
