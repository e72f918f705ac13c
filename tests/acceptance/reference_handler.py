import boto3
import uuid
from datetime import datetime

s3 = boto3.client("s3")
dynamodb = boto3.resource("dynamodb")
table = dynamodb.Table("FileTransferMetadata")

def lambda_handler(event, context):
    file_id = str(uuid.uuid4())
    file_key = event["key"]
    source_bucket = event["source_bucket"]
    destination_bucket = event["destination_bucket"]
    
    # Insert record when Lambda starts
    table.put_item(Item={
        "file_id": file_id,
        "key": file_key,
        "source_bucket": source_bucket,
        "destination_bucket": destination_bucket,
        "upload_timestamp": datetime.utcnow().isoformat(),
        "status": "transferring"
    })
    
    try:
        s3.copy_object(
            Bucket=destination_bucket,
            Key=file_key,
            CopySource={"Bucket": source_bucket, "Key": file_key}
        )
        
        table.update_item(
            Key={"file_id": file_id},
            UpdateExpression="SET transfer_timestamp = :t, #s = :s",
            ExpressionAttributeValues={
                ":t": datetime.utcnow().isoformat(),
                ":s": "transferred"
            },
            ExpressionAttributeNames={"#s": "status"}
        )
    except Exception as e:
        table.update_item(
            Key={"file_id": file_id},
            UpdateExpression="SET error_message = :e, #s = :s",
            ExpressionAttributeValues={
                ":e": str(e),
                ":s": "failed"
            },
            ExpressionAttributeNames={"#s": "status"}
        )
